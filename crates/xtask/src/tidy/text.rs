//! What no text file of ours holds: names of package registries, paths of one person's machine, blanks at line ends.

use super::Problem;
use crate::workspace::TextFile;

/// Hosts of registries and mirrors, in halves so that this file does not name them either. Which registry serves a
/// package is the business of each machine's own configuration.
const REGISTRIES: &[(&str, &str)] = &[
    ("crates", "io"),
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("rubygems", "org"),
    ("golang", "org"),
    ("maven", "org"),
    ("docker", "io"),
    ("ghcr", "io"),
    ("quay", "io"),
    ("gcr", "io"),
    ("deb.debian", "org"),
    ("archive.ubuntu", "com"),
];

/// Top folders that only hold one machine's or one person's files.
const MACHINE_FOLDERS: &[&str] = &["home", "root", "work", "Users"];

/// Written by cargo, which puts its registry's address into it.
const LOCK_FILE: &str = "Cargo.lock";

/// Reads every line of every file.
pub(crate) fn check(files: &[TextFile]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let mut problem = |what: String| problems.push(Problem::new(&file.path, index + 1, what));
            if let Some(host) = registry_in(line).filter(|_| file.path != LOCK_FILE) {
                problem(format!("names the registry {host}; say what is fetched, not from where"));
            }
            if let Some(path) = machine_path_in(line) {
                problem(format!(
                    "names {path}, a path of one machine; write it relative, or take it as an argument"
                ));
            }
            // A snapshot holds what a program printed, blanks included.
            if line.trim_end() != line && !file.path.ends_with(".snap") {
                problem("ends in white space; take it off".to_owned());
            }
        }
    }
    problems
}

fn registry_in(line: &str) -> Option<String> {
    let is_host_char = |c: char| c.is_ascii_alphanumeric() || c == '-';
    REGISTRIES.iter().map(|(name, domain)| format!("{name}.{domain}")).find(|host| {
        line.match_indices(host.as_str()).any(|(at, _)| {
            !line[..at].ends_with(is_host_char) && !line[at + host.len()..].starts_with(is_host_char)
        })
    })
}

fn machine_path_in(line: &str) -> Option<String> {
    MACHINE_FOLDERS.iter().map(|folder| format!("/{folder}/")).find(|path| {
        line.match_indices(path.as_str()).any(|(at, _)| {
            // Part of a longer path or address, or of a placeholder's path, is not at a machine's root.
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.~*}>)@/".contains(c))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    fn problems(path: &str, text: &str) -> Vec<String> {
        check(&[file(path, text)]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_registrys_host_is_found_as_a_whole_name_only() {
        for (name, domain) in REGISTRIES {
            let host = format!("{name}.{domain}");
            for text in [format!("see https://{host}/x"), format!("index.{host}"), format!("`{host}`")] {
                assert_eq!(problems("README.md", &text).len(), 1, "{text}");
            }
        }
        let (name, domain) = REGISTRIES[0];
        assert!(problems("README.md", &format!("{name}-{domain} and my{name}.{domain}x")).is_empty());
        assert!(problems("Cargo.lock", &format!("https://{name}.{domain}")).is_empty());
    }

    #[test]
    fn a_path_at_a_machines_root_is_found_and_a_path_below_another_is_not() {
        let folder = MACHINE_FOLDERS[0];
        for text in [format!("cd /{folder}/me"), format!("x = \"/{folder}/me\""), format!("/{folder}/me")] {
            assert_eq!(
                problems("a.md", &text),
                [format!(
                    "a.md:1: names /{folder}/, a path of one machine; write it relative, or take it as an argument"
                )]
            );
        }
        for text in
            [format!("https://host/{folder}/x"), format!("./{folder}/x"), format!("{{dir}}/{folder}/x")]
        {
            assert!(problems("a.md", &text).is_empty(), "{text}");
        }
    }

    #[test]
    fn blanks_at_a_lines_end_are_found_with_their_line() {
        assert_eq!(
            problems("a.md", "one\ntwo \nthree\t\n"),
            ["a.md:2: ends in white space; take it off", "a.md:3: ends in white space; take it off"]
        );
        assert!(problems("a.snap", "two \n").is_empty());
    }
}
