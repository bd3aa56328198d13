//! Which crate may depend on which. The table is the architecture's arrows; a dependency that is not in it fails.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, Node, PackageId};

use super::Problem;

/// Each crate of ours and all that it may use of ours, in whichever kind of dependency.
const ARROWS: &[(&str, &[&str])] = &[
    ("model-store", &[]),
    ("protocol", &[]),
    ("scheduler", &[]),
    ("profile", &["scheduler"]),
    ("telemetry", &[]),
    ("tiny-model", &[]),
    ("xtask", &[]),
    ("engine", &["kernels", "profile", "protocol", "scheduler"]),
    ("evidence", &[]),
    ("rollout", &["evidence", "routing"]),
    ("controller", &["evidence", "http-server", "protocol", "rollout", "routing", "telemetry"]),
    ("gateway", &["evidence", "http-server", "protocol", "response-cache", "routing", "telemetry"]),
    ("http-server", &["protocol"]),
    ("kernels", &[]),
    ("quantize", &["engine"]),
    ("bench", &["engine", "kernels", "loadtest", "quantize"]),
    ("loadtest", &["protocol"]),
    ("registry", &["model-store"]),
    ("response-cache", &["protocol"]),
    ("routing", &["protocol"]),
    ("tests", &["protocol", "tiny-model"]),
    ("worker", &["engine", "http-server", "protocol", "telemetry"]),
    (
        "cli",
        &[
            "bench",
            "controller",
            "engine",
            "gateway",
            "loadtest",
            "model-store",
            "profile",
            "protocol",
            "quantize",
            "registry",
            "response-cache",
            "rollout",
            "routing",
            "scheduler",
            "telemetry",
            "worker",
        ],
    ),
];

/// Crates made for tests: any crate's tests may use them, and nothing that is shipped may.
const FOR_TESTS: &[&str] = &["tiny-model"];

/// Crates that are functions of values: no runtime, socket, server or store may be below them, however far down.
const PURE: &[&str] = &["evidence", "profile", "protocol", "rollout", "routing", "scheduler"];
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "candle-core",
    "h2",
    "hyper",
    "hyper-util",
    "mio",
    "moka",
    "rayon",
    "redis",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "tokio",
    "tower",
    "ureq",
];

/// The resolved dependencies, ours and others'.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// By an id that tells versions of one package apart.
    packages: BTreeMap<String, Package>,
}

#[derive(Debug, Default)]
struct Package {
    name: String,
    /// Folder from the workspace's root, and manifest, of a crate of ours.
    ours: Option<(String, String)>,
    /// Ids of what is linked into it.
    normal: Vec<String>,
    /// Ids of what only its build script and its tests use.
    other: Vec<String>,
}

impl Graph {
    /// Reads cargo's resolution, and the manifests of our own crates.
    pub(crate) fn new(metadata: &Metadata) -> Result<Self> {
        let nodes = &metadata.resolve.as_ref().context("cargo metadata resolved nothing")?.nodes;
        let nodes: BTreeMap<&PackageId, &Node> = nodes.iter().map(|node| (&node.id, node)).collect();
        let mut packages = BTreeMap::new();
        for package in &metadata.packages {
            let ours = if metadata.workspace_members.contains(&package.id) {
                let folder = package.manifest_path.parent().unwrap_or(&package.manifest_path);
                let folder = folder.strip_prefix(&metadata.workspace_root).unwrap_or(folder);
                Some((folder.to_string(), std::fs::read_to_string(&package.manifest_path)?))
            } else {
                None
            };
            let mut entry = Package { name: package.name.to_string(), ours, ..Package::default() };
            for dependency in nodes.get(&package.id).map(|node| node.deps.as_slice()).unwrap_or_default() {
                let is_normal = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
                let ids = if is_normal { &mut entry.normal } else { &mut entry.other };
                ids.push(dependency.pkg.repr.clone());
            }
            packages.insert(package.id.repr.clone(), entry);
        }
        Ok(Self { packages })
    }

    /// Name and folder of each crate of ours.
    pub(crate) fn ours(&self) -> Vec<(String, String)> {
        let folder = |package: &Package| Some((package.name.clone(), package.ours.as_ref()?.0.clone()));
        self.packages.values().filter_map(folder).collect()
    }
}

/// Compares each crate's dependencies with the tables.
pub(crate) fn check(graph: &Graph) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in graph.packages.values() {
        let Some((folder, manifest)) = &package.ours else { continue };
        let path = format!("{folder}/Cargo.toml");
        let name = &package.name;
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| crate_name == name) else {
            problems.push(Problem::new(path, 1, format!("the crate `{name}` is new; {RECORD}")));
            continue;
        };
        let ids =
            package.normal.iter().map(|id| (id, true)).chain(package.other.iter().map(|id| (id, false)));
        for (id, is_shipped) in ids {
            let Some(used) = graph.packages.get(id).filter(|used| used.ours.is_some()) else { continue };
            let for_tests = !is_shipped && FOR_TESTS.contains(&used.name.as_str());
            if !for_tests && !allowed.contains(&used.name.as_str()) {
                let what = format!("`{name}` → `{}` is a new arrow; do without it, or {RECORD}", used.name);
                problems.push(Problem::new(&path, line_of(manifest, &used.name), what));
            }
        }
        if PURE.contains(&name.as_str()) {
            for way in impure_ways(graph, package) {
                let what =
                    format!("`{name}` is pure but reaches {way}; move what needs it to a crate at the rim");
                problems.push(Problem::new(&path, 1, what));
            }
        }
    }
    let names: BTreeSet<String> = graph.ours().into_iter().map(|(name, _)| name).collect();
    let gone = ARROWS.iter().filter(|(name, _)| !names.contains(*name));
    problems.extend(gone.map(|(name, _)| {
        Problem::new(TABLE, 1, format!("has a row for `{name}`, which is no crate of ours; take the row out"))
    }));
    problems
}

const TABLE: &str = "crates/xtask/src/tidy/arrows.rs";
const RECORD: &str = "record it in ARCHITECTURE.md and in the table of crates/xtask/src/tidy/arrows.rs";

/// Each impure package below `package` that is linked into it, with the way there.
fn impure_ways(graph: &Graph, package: &Package) -> Vec<String> {
    let mut ways = Vec::new();
    let mut seen = BTreeSet::new();
    let mut queue: VecDeque<(&str, String)> =
        package.normal.iter().map(|id| (id.as_str(), String::new())).collect();
    while let Some((id, above)) = queue.pop_front() {
        let Some(found) = graph.packages.get(id).filter(|_| seen.insert(id)) else { continue };
        let way = format!("{above}`{}`", found.name);
        if IMPURE.contains(&found.name.as_str()) {
            ways.push(way);
        } else {
            queue.extend(found.normal.iter().map(|id| (id.as_str(), format!("{way} → "))));
        }
    }
    ways
}

/// Where a manifest names a dependency.
fn line_of(manifest: &str, name: &str) -> usize {
    let names_it = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    manifest.lines().position(names_it).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of all crates in the table, without dependencies, and of packages that are not ours.
    fn graph(others: &[(&str, &[&str])]) -> Graph {
        let mut graph = Graph::default();
        for (name, _) in ARROWS {
            let ours = Some((format!("crates/{name}"), "[dependencies]\n".to_owned()));
            graph
                .packages
                .insert((*name).into(), Package { name: (*name).into(), ours, ..Package::default() });
        }
        for (name, normal) in others {
            let normal = normal.iter().map(|id| (*id).to_owned()).collect();
            graph
                .packages
                .insert((*name).into(), Package { name: (*name).into(), normal, ..Package::default() });
        }
        graph
    }

    fn problems(graph: &Graph) -> Vec<String> {
        check(graph).iter().map(ToString::to_string).collect()
    }

    fn ours<'a>(graph: &'a mut Graph, name: &str) -> &'a mut Package {
        graph.packages.get_mut(name).expect("in the table")
    }

    #[test]
    fn a_new_arrow_fails_and_says_where_to_record_it() {
        let mut graph = graph(&[]);
        ours(&mut graph, "engine").normal = vec!["scheduler".into(), "worker".into()];
        ours(&mut graph, "engine").ours = Some((
            "crates/engine".into(),
            "[dependencies]\nscheduler.workspace = true\nworker.workspace = true\n".into(),
        ));
        assert_eq!(
            problems(&graph),
            [
                "crates/engine/Cargo.toml:3: `engine` → `worker` is a new arrow; do without it, or record it in \
             ARCHITECTURE.md and in the table of crates/xtask/src/tidy/arrows.rs"
            ]
        );
    }

    #[test]
    fn an_arrow_of_tests_is_an_arrow() {
        let mut graph = graph(&[]);
        ours(&mut graph, "routing").other = vec!["gateway".into()];
        assert_eq!(problems(&graph).len(), 1);
    }

    #[test]
    fn what_is_made_for_tests_is_used_by_tests_alone() {
        let mut graph = graph(&[]);
        ours(&mut graph, "engine").other = vec!["tiny-model".into()];
        assert_eq!(problems(&graph), Vec::<String>::new());
        ours(&mut graph, "engine").normal = vec!["tiny-model".into()];
        assert_eq!(problems(&graph).len(), 1);
    }

    #[test]
    fn a_pure_crate_may_not_reach_a_runtime_through_another_package() {
        let mut graph =
            graph(&[("fine", &[]), ("wrapper", &["fine", "tokio"]), ("tokio", &["mio"]), ("mio", &[])]);
        ours(&mut graph, "scheduler").normal = vec!["wrapper".into(), "fine".into()];
        ours(&mut graph, "routing").other = vec!["wrapper".into()];
        ours(&mut graph, "gateway").normal = vec!["tokio".into()];
        assert_eq!(
            problems(&graph),
            [
                "crates/scheduler/Cargo.toml:1: `scheduler` is pure but reaches `wrapper` → `tokio`; move what needs it \
             to a crate at the rim"
            ]
        );
    }

    #[test]
    fn a_new_crate_and_a_row_for_a_gone_one_fail() {
        let mut graph = graph(&[]);
        let moved = graph.packages.remove("routing").expect("in the table");
        graph.packages.insert("steering".into(), Package { name: "steering".into(), ..moved });
        let found = problems(&graph);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("crates/routing/Cargo.toml:1: the crate `steering` is new;"),
            "{found:?}"
        );
        assert!(found[1].contains("has a row for `routing`"), "{found:?}");
    }

    #[test]
    fn the_table_has_no_cycle() {
        let uses: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        while done.len() < uses.len() {
            let ready = uses
                .iter()
                .filter(|(name, used)| !done.contains(**name) && used.iter().all(|used| done.contains(used)));
            let next: Vec<&str> = ready.map(|(name, _)| *name).collect();
            assert!(!next.is_empty(), "only {done:?} can be built in order");
            done.extend(next);
        }
    }
}
