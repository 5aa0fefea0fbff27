//! The example `unpack`, real from end to end: real files, real decoders as programs, and a team that learns from the
//! outcomes alone who opens what.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use relevo_core::record::{Reader, Record};
use serde_json::Value;

const TOOLS: [&str; 10] = ["awk", "gzip", "xz", "bzip2", "zstd", "base64", "basenc", "tar", "zip", "unzip"];
const PACKAGES: &str = "gzip xz-utils bzip2 zstd coreutils tar zip unzip";

const EPISODES: usize = 560;
const TRAIN: usize = 60;
const TEST: usize = 40;

fn has(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> (Output, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

/// A copy of the example, with files of its own, that gives up on a file sooner.
fn set_up(place: &Path) {
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !has(tool)).collect();
    assert!(missing.is_empty(), "{missing:?} are not here; on Debian or Ubuntu: apt-get install {PACKAGES}");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/unpack");
    for name in ["decode", "intake", "make-files"] {
        fs::copy(example.join(name), place.join(name)).unwrap();
    }
    let team = fs::read_to_string(example.join("team.toml")).unwrap();
    let sooner = team.replace("max_handoffs = 40", "max_handoffs = 12");
    assert_ne!(sooner, team, "the example allows another number of handoffs");
    fs::write(place.join("team.toml"), sooner).unwrap();
    let (made, _, said) = run(Command::new(place.join("make-files")).args([
        "--out".as_ref(),
        place.join("data").as_os_str(),
        "--train".as_ref(),
        TRAIN.to_string().as_ref(),
        "--test".as_ref(),
        TEST.to_string().as_ref(),
    ]));
    assert!(made.status.success(), "{said}");
}

/// The return of every episode of a ledger.
fn returns(ledger: &[u8]) -> Vec<f64> {
    let mut reader = Reader::new(ledger);
    let mut returns = vec![];
    while let Some(entry) = reader.next_entry().unwrap() {
        if let Record::Closed { episode_return, .. } = entry.record {
            returns.push(episode_return);
        }
    }
    returns
}

/// Share of the episodes that unwrapped their file: it earns 1, which 13 calls at 0.02 do not use up.
fn solved(returns: &[f64]) -> f64 {
    returns.iter().filter(|r| **r > 0.5).count() as f64 / returns.len() as f64
}

#[test]
fn decoders_learn_who_opens_what() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    set_up(place);
    let relevo = |arguments: &[&str]| {
        run(Command::new(env!("CARGO_BIN_EXE_relevo")).args(arguments).current_dir(place))
    };

    let episodes = EPISODES.to_string();
    let (learned, table, said) = relevo(&["learn", "team.toml", "--episodes", &episodes, "--out", "run"]);
    assert!(learned.status.success(), "{said}");
    assert!(table.contains("dispatcher") && table.contains("fixed order"), "{table}");

    // Trial and error at first; then many files are unwrapped.
    let returns = returns(&fs::read(place.join("run/ledger.cbor")).unwrap());
    assert_eq!(returns.len(), EPISODES);
    let (first, last) = (solved(&returns[..60]), solved(&returns[EPISODES - 60..]));
    assert!(last > first + 0.2, "{first} of the first 60 episodes, {last} of the last");
    let report: Value = serde_json::from_slice(&fs::read(place.join("run/report.json")).unwrap()).unwrap();
    let arm = |kind: &str| {
        let arms = report["arms"].as_array().unwrap();
        arms.iter().find(|a| a["kind"] == kind).unwrap_or_else(|| panic!("no {kind} arm: {report}"))
    };
    let mean = |kind: &str, key: &str| arm(kind)[key]["mean"].as_f64().unwrap();
    let share = mean("learned", "quality");
    assert!(share >= 0.5, "{share} of the unseen files");
    assert!(share > first + 0.2 && share > mean("single", "quality") + 0.3, "{first}\n{table}");
    assert!(mean("learned", "value") > mean("single", "value"), "{table}");

    // Every walk's calls are counted, whole ones, and each costs its price.
    assert_eq!(report["evaluation_tasks"], TEST);
    for arm in report["arms"].as_array().unwrap() {
        let sum = |key: &str| TEST as f64 * arm[key]["mean"].as_f64().unwrap();
        let (value, quality, calls, failures) = (sum("value"), sum("quality"), sum("calls"), sum("failures"));
        assert!((calls - calls.round()).abs() < 1e-6 && calls >= TEST as f64 && failures < calls, "{arm}");
        assert!((value - (quality - 0.02 * calls)).abs() < 1e-6, "{arm}");
    }

    // One unseen file after the other, until one is unwrapped.
    let mut unwrapped = None;
    for number in 1..=TEST {
        let input = format!("data/test/{number:04}");
        let (ran, walk, said) =
            relevo(&["run", "team.toml", "--policy", "run", "--input", &input, "--output", "out"]);
        assert!(said.ends_with("what came out is in out\n"), "{said}");
        let last = walk.lines().last().unwrap();
        let words: Vec<&str> = last.split([' ', '(']).filter(|w| !w.is_empty()).collect();
        let count = |word: &str| {
            let at = words.iter().position(|w| w.starts_with(word)).unwrap();
            words[at - 1].parse::<usize>().unwrap()
        };
        // A head and its rule, a line for each call, a line for each failure, and the end.
        assert_eq!(walk.lines().count(), 2 + count("calls") + count("failed") + 1, "{walk}");
        assert_eq!(walk.matches("the agent refused: ").count(), count("failed"), "{walk}");
        let first = walk.lines().nth(2).unwrap().split_whitespace();
        assert_eq!(first.take(2).collect::<Vec<_>>(), ["1", "intake"], "{walk}");
        assert_eq!(ran.status.code(), Some(if last.ends_with("quality 1") { 0 } else { 2 }), "{walk}");
        if ran.status.success() {
            assert!(walk.contains("payload.kind=") && walk.contains("value (visits): "), "{walk}");
            unwrapped = Some((input, fs::read(place.join("out")).unwrap()));
            break;
        }
    }
    // The same bytes under another name: nothing is known of it, and the same comes out.
    let (input, bytes) = unwrapped.expect("no unseen file was unwrapped");
    fs::rename(place.join(input), place.join("mine")).unwrap();
    let (ran, walk, _) =
        relevo(&["run", "team.toml", "--policy", "run", "--input", "mine", "--output", "out"]);
    assert!(ran.status.success() && walk.contains("quality unknown"), "{walk}");
    assert!(fs::read(place.join("out")).unwrap() == bytes);
}
