//! The Hugging Face hub: what a repository holds, and which of it to fetch.

use std::io::Read;

use serde::Deserialize;
use ureq::Agent;

use crate::error::Error;
use crate::http::{encode_path, shown_url, status_error};
use crate::installed::ModelFormat;
use crate::reference::is_safe_file_name;

const LISTING_BYTES_MAX: u64 = 32 << 20;
/// Which GGUF to take where several are there and none was asked for: the best quality that is served fast comes
/// first, then what is smaller, then what is unquantized.
const GGUF_PREFERENCE: [&str; 14] = [
    "q8_0", "q4_k_m", "q5_k_m", "q6_k", "q5_k_s", "q4_k_s", "q5_1", "q5_0", "q4_1", "q4_0", "q3_k_m", "f16",
    "bf16", "f32",
];
/// Beside the weights of a directory model: what must be there, and what is taken along where it is there.
const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];
const OPTIONAL: [&str; 4] =
    ["tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.jinja"];
const INDEX: &str = "model.safetensors.index.json";

/// A repository at one commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The commit, where the hub told it, or else the revision asked for.
    pub(crate) commit: String,
    pub(crate) files: Vec<HubFile>,
}

/// One file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubFile {
    pub(crate) name: String,
    pub(crate) size_bytes: Option<u64>,
    /// Only of files in large-file storage, as weights are.
    pub(crate) sha256: Option<String>,
}

/// What is to be fetched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) format: ModelFormat,
    pub(crate) files: Vec<HubFile>,
}

/// The address of a file.
pub(crate) fn file_url(endpoint: &str, repository: &str, revision: &str, file: &str) -> String {
    let (endpoint, revision) = (endpoint.trim_end_matches('/'), revision.replace('/', "%2F"));
    format!("{endpoint}/{repository}/resolve/{revision}/{}", encode_path(file))
}

/// Asks the hub what `repository` holds at `revision`.
pub(crate) fn list_files(
    agent: &Agent,
    endpoint: &str,
    repository: &str,
    revision: &str,
    token: Option<&str>,
) -> Result<Listing, Error> {
    let endpoint = endpoint.trim_end_matches('/');
    let revision_segment = revision.replace('/', "%2F");
    let url = format!("{endpoint}/api/models/{repository}/revision/{revision_segment}?blobs=true");
    let mut call = agent.get(&url);
    if let Some(token) = token {
        call = call.header("authorization", format!("Bearer {token}"));
    }
    let unreachable = |reason: String| Error::Unreachable { url: shown_url(&url), reason };
    let mut response = call.call().map_err(|error| unreachable(error.to_string()))?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(status_error(&url, status));
    }
    let mut body = Vec::new();
    let mut reader = response.body_mut().as_reader().take(LISTING_BYTES_MAX);
    reader.read_to_end(&mut body).map_err(|error| unreachable(error.to_string()))?;
    parse_listing(&body, revision)
        .map_err(|error| Error::BadAnswer { url: shown_url(&url), reason: error.to_string() })
}

fn parse_listing(body: &[u8], revision: &str) -> Result<Listing, serde_json::Error> {
    #[derive(Deserialize)]
    struct Model {
        sha: Option<String>,
        siblings: Vec<Sibling>,
    }
    #[derive(Deserialize)]
    struct Sibling {
        rfilename: String,
        size: Option<u64>,
        lfs: Option<Lfs>,
    }
    #[derive(Deserialize)]
    struct Lfs {
        sha256: Option<String>,
        size: Option<u64>,
    }
    let model: Model = serde_json::from_slice(body)?;
    let is_commit = |sha: &String| sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit());
    let files = model.siblings.into_iter().map(|sibling| {
        let (sha256, lfs_size) = sibling.lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
        HubFile {
            name: sibling.rfilename,
            size_bytes: lfs_size.or(sibling.size),
            sha256: sha256.map(|sum| sum.to_ascii_lowercase()),
        }
    });
    Ok(Listing {
        commit: model.sha.filter(is_commit).unwrap_or_else(|| revision.to_owned()),
        files: files.collect(),
    })
}

/// Chooses what to fetch: the file asked for; or else one GGUF by preference; or else the safetensors at the top, with
/// configuration and tokenizer.
///
/// The error is the reason, for [`Error::NothingToServe`].
pub(crate) fn choose(files: &[HubFile], asked: Option<&str>) -> Result<Chosen, String> {
    let files: Vec<&HubFile> = files.iter().filter(|file| is_safe_file_name(&file.name)).collect();
    let ggufs: Vec<&HubFile> = files.iter().copied().filter(|file| is_whole_gguf(&file.name)).collect();
    let gguf = |file: &HubFile| Chosen { format: ModelFormat::Gguf, files: vec![file.clone()] };
    if let Some(asked) = asked {
        return ggufs.iter().find(|file| file.name == asked).map(|file| gguf(file)).ok_or_else(|| {
            let names: Vec<&str> = ggufs.iter().map(|file| file.name.as_str()).take(20).collect();
            format!("no whole GGUF file {asked}; there are [{}]", names.join(", "))
        });
    }
    let rank = |file: &HubFile| (gguf_rank(&file.name), file.name.matches('/').count(), file.name.clone());
    match ggufs.into_iter().min_by_key(|file| rank(file)) {
        Some(best) => Ok(gguf(best)),
        None => choose_safetensors(&files),
    }
}

/// A GGUF of weights that is no piece of several.
fn is_whole_gguf(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    base.ends_with(".gguf")
        && !base.contains("-of-0")
        && !base.starts_with("mmproj")
        && !base.contains("imatrix")
}

/// The place in [`GGUF_PREFERENCE`], by the longest type that the name holds.
fn gguf_rank(name: &str) -> usize {
    let base = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let held = GGUF_PREFERENCE.iter().enumerate().filter(|(_, dtype)| base.contains(**dtype));
    held.max_by_key(|(_, dtype)| dtype.len()).map_or(GGUF_PREFERENCE.len(), |(rank, _)| rank)
}

fn choose_safetensors(files: &[&HubFile]) -> Result<Chosen, String> {
    let find = |name: &str| files.iter().copied().find(|file| file.name == name);
    let mut chosen: Vec<HubFile> = Vec::new();
    for name in REQUIRED {
        chosen.push(find(name).ok_or_else(|| format!("neither a GGUF file nor {name}"))?.clone());
    }
    chosen.extend(OPTIONAL.iter().filter_map(|name| find(name)).cloned());
    let top: Vec<&HubFile> = files
        .iter()
        .copied()
        .filter(|file| file.name.ends_with(".safetensors") && !file.name.contains('/'))
        .collect();
    if let Some(single) = find("model.safetensors") {
        chosen.push(single.clone());
    } else if let Some(index) = find(INDEX) {
        let shards: Vec<&HubFile> = top
            .into_iter()
            .filter(|file| file.name.starts_with("model-") && file.name.contains("-of-"))
            .collect();
        if shards.is_empty() {
            return Err(format!("{INDEX} without model-*-of-*.safetensors"));
        }
        chosen.push(index.clone());
        chosen.extend(shards.into_iter().cloned());
    } else if let [only] = top[..] {
        chosen.push(only.clone());
    } else {
        return Err(format!(
            "neither a GGUF file nor model.safetensors ({} other .safetensors files)",
            top.len()
        ));
    }
    Ok(Chosen { format: ModelFormat::Safetensors, files: chosen })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<HubFile> {
        names.iter().map(|name| HubFile { name: (*name).into(), size_bytes: Some(1), sha256: None }).collect()
    }

    fn chosen(names: &[&str], asked: Option<&str>) -> Vec<String> {
        choose(&files(names), asked).unwrap().files.into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn a_listing_gives_commit_sizes_and_checksums() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let body = format!(
            r#"{{"id":"o/r","sha":"{commit}","siblings":[
                {{"rfilename":"config.json","size":7,"blobId":"x"}},
                {{"rfilename":"m.gguf","size":9,"lfs":{{"sha256":"AB","size":9,"pointerSize":1}}}}]}}"#
        );
        let listing = parse_listing(body.as_bytes(), "main").unwrap();
        assert_eq!(listing.commit, commit);
        assert_eq!(listing.files[0].sha256, None);
        assert_eq!((listing.files[1].size_bytes, listing.files[1].sha256.as_deref()), (Some(9), Some("ab")));
        let strange = parse_listing(br#"{"sha":"../../x","siblings":[]}"#, "main").unwrap();
        assert_eq!(strange.commit, "main");
    }

    #[test]
    fn of_several_ggufs_the_preferred_type_is_taken() {
        assert_eq!(
            chosen(&["m.Q2_K.gguf", "m.Q4_K_M.gguf", "m.Q8_0.gguf", "m.f16.gguf"], None),
            ["m.Q8_0.gguf"]
        );
        assert_eq!(chosen(&["m-q4_k_s.gguf", "m-Q4_K_M.gguf"], None), ["m-Q4_K_M.gguf"]);
        assert_eq!(chosen(&["m.BF16.gguf", "m.F16.gguf"], None), ["m.F16.gguf"]);
        assert_eq!(chosen(&["m.IQ2_XS.gguf"], None), ["m.IQ2_XS.gguf"]);
    }

    #[test]
    fn pieces_projectors_and_unsafe_names_are_never_taken() {
        let names = ["m-Q8_0-00001-of-00002.gguf", "mmproj-Q8_0.gguf", "../m.Q8_0.gguf", "m.Q4_0.gguf"];
        assert_eq!(chosen(&names, None), ["m.Q4_0.gguf"]);
        assert!(choose(&files(&names), Some("../m.Q8_0.gguf")).is_err());
    }

    #[test]
    fn a_file_asked_for_is_taken_or_the_others_are_named() {
        assert_eq!(chosen(&["a.Q8_0.gguf", "sub/b.Q4_0.gguf"], Some("sub/b.Q4_0.gguf")), ["sub/b.Q4_0.gguf"]);
        let reason = choose(&files(&["a.Q8_0.gguf"]), Some("b.gguf")).unwrap_err();
        assert!(reason.contains("a.Q8_0.gguf"), "{reason}");
    }

    #[test]
    fn without_a_gguf_the_safetensors_come_with_configuration_and_tokenizer() {
        let names = [
            "README.md",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
            "onnx/model.onnx",
        ];
        let taken = chosen(&names, None);
        assert_eq!(taken, ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]);
    }

    #[test]
    fn shards_come_with_their_index() {
        let names = [
            "config.json",
            "tokenizer.json",
            INDEX,
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "consolidated.safetensors",
        ];
        let taken = chosen(&names, None);
        assert_eq!(
            taken[2..],
            [INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        );
    }

    #[test]
    fn a_repository_without_weights_or_tokenizer_is_refused_with_the_reason() {
        assert!(
            choose(&files(&["config.json", "model.safetensors"]), None)
                .unwrap_err()
                .contains("tokenizer.json")
        );
        assert!(
            choose(&files(&["config.json", "tokenizer.json"]), None)
                .unwrap_err()
                .contains("model.safetensors")
        );
    }

    #[test]
    fn addresses_are_encoded() {
        let url = file_url("https://hub/", "o/r", "refs/pr/1", "a b/c.gguf");
        assert_eq!(url, "https://hub/o/r/resolve/refs%2Fpr%2F1/a%20b/c.gguf");
    }
}
