//! The layers: which crate may know which, and what the core must never reach. Any other arrow fails here.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Each crate of ours, and those of ours that it may know, tests included. What is not here has to be decided on.
const ARROWS: [(&str, &[&str]); 6] = [
    ("relevo-core", &[]),
    ("relevo-lm", &[]),
    ("relevo", &["relevo-core", "relevo-lm"]),
    ("relevo-node", &["relevo-core", "relevo"]),
    ("relevo-lab", &["relevo-core", "relevo-lm", "relevo"]),
    ("relevo-cli", &["relevo-core", "relevo", "relevo-lab", "relevo-lm", "relevo-node"]),
];

/// What the core is made of besides itself; the second list is for its tests.
const CORE_USES: [&str; 11] = [
    "blake3",
    "foldhash",
    "hashbrown",
    "libm",
    "minicbor",
    "rand_chacha",
    "rand_core",
    "smallvec",
    "serde",
    "serde_json",
    "thiserror",
];
const CORE_TESTS_USE: [&str; 1] = ["proptest"];

/// Input, output, time and threads are the driver's.
const CORE_NEVER_SAYS: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::time",
    "std::thread",
    "std::process",
    "std::env",
    "tokio",
    "SystemTime",
    "Instant",
];

/// Every package of the workspace, with the kind and name of each thing it depends on.
fn packages() -> BTreeMap<String, Vec<(String, String)>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let uses = package["dependencies"].as_array().unwrap();
        (text(&package["name"]), uses.iter().map(|d| (text(&d["kind"]), text(&d["name"]))).collect())
    });
    packages.collect()
}

#[test]
fn crates_know_only_what_they_may() {
    let packages = packages();
    let ours: Vec<&str> = packages.keys().map(String::as_str).collect();
    let mut listed: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    assert_eq!(ours, listed, "the crates of the workspace, and those whose arrows are decided");
    for (name, may_know) in ARROWS {
        for (kind, used) in &packages[name] {
            let allowed = !ours.contains(&used.as_str()) || may_know.contains(&used.as_str());
            assert!(allowed, "{name} -> {used} ({kind}): it may know {may_know:?}");
        }
    }
    for (kind, used) in &packages["relevo-core"] {
        let allowed = match kind.as_str() {
            "normal" => CORE_USES.contains(&used.as_str()),
            "dev" => CORE_USES.contains(&used.as_str()) || CORE_TESTS_USE.contains(&used.as_str()),
            _ => false,
        };
        assert!(allowed, "relevo-core -> {used} ({kind}): the core is made of {CORE_USES:?}");
    }
}

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// What the machine of a node, its wire and its simulation leave to whoever drives them.
const MACHINE_NEVER_SAYS: [&str; 6] = ["std::fs", "std::net", "std::thread", "tokio", "axum", "rusqlite"];

#[test]
fn the_core_reaches_nothing_outside() {
    says_nothing_of("crates/relevo-core/src", &CORE_NEVER_SAYS, 10);
}

#[test]
fn the_machine_of_a_node_reaches_nothing_outside() {
    for folder in ["machine", "wire", "sim"] {
        says_nothing_of(&format!("crates/relevo-node/src/{folder}"), &MACHINE_NEVER_SAYS, 3);
    }
}

fn says_nothing_of(folder: &str, never: &[&str], files: usize) {
    let mut found = vec![];
    sources(&Path::new(ROOT).join(folder), &mut found);
    assert!(found.len() > files, "only {} files in {folder}", found.len());
    for (path, text) in found {
        for (number, line) in text.lines().enumerate() {
            // Comments may speak of what is absent.
            let code = line.split("//").next().unwrap_or("");
            let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            for word in words {
                let said = never.iter().find(|never| {
                    word == **never
                        || word.starts_with(&format!("{never}::"))
                        || word.ends_with(&format!("::{never}"))
                });
                assert!(said.is_none(), "{path}:{}: {}", number + 1, line.trim());
            }
        }
    }
}
