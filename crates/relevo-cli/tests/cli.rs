//! The command line as a person meets it: what each verb prints where, its exit codes, and that a run survives Ctrl-C
//! and kill.

mod place;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    ops::Deref,
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use place::{Place, Said, assert_holds, signal};
use relevo_core::Rng;

const FILES: [&str; 9] = [
    "ledger.cbor",
    "policy.json",
    "report.json",
    "report.txt",
    "handoffs.svg",
    "decisions.svg",
    "learning.svg",
    "run.json",
    "session.html",
];

/// The team of `examples/maths-simulated`, called maths and measured on few tasks.
struct Maths(Place);

impl Deref for Maths {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Maths {
    fn new() -> Self {
        let team = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/maths-simulated/team.toml");
        let team = fs::read_to_string(team).unwrap();
        let team = team.replace("name = \"maths-simulated\"", "name = \"maths\"");
        let small = team.replace("evaluation_tasks = 60_000", "evaluation_tasks = 60");
        assert_ne!(team, small, "the example is measured on another number of tasks");
        let place = Place::new();
        place.write("team.toml", &small);
        Maths(place)
    }

    fn learn(&self, arguments: &str) -> Said {
        let said = self.relevo(&format!("learn team.toml {arguments}"));
        assert_eq!(said.code, Some(0), "{arguments}: {}", said.stderr);
        said
    }

    /// All files of a run.
    fn run(&self, folder: &str) -> Vec<Vec<u8>> {
        FILES.iter().map(|name| fs::read(self.path(folder).join(name)).unwrap()).collect()
    }
}

fn same_run(a: &[Vec<u8>], b: &[Vec<u8>]) {
    for ((a, b), name) in a.iter().zip(b).zip(FILES) {
        assert!(a == b, "{name} differs: {} and {} bytes", a.len(), b.len());
    }
}

// ---- learn ----

#[test]
fn learn_prints_the_comparison_and_leaves_its_files() {
    let place = Maths::new();
    let said = place.learn("--episodes 300");
    assert!(said.stdout.starts_with("\nValue (mean return ± 95% interval) on 60 tasks"), "{}", said.stdout);
    assert_holds(
        &said.stdout,
        &["dataset=mathqa", "What was learned", "Side by side", "combine-E", "editor alone"],
    );
    for progress in ["episode ", "runs/maths", "seed"] {
        assert!(said.stderr.contains(progress) && !said.stdout.contains(progress), "{}", said.stderr);
    }
    assert_holds(
        &said.stderr,
        &["maths: 300 episodes, seed 1", "episode 300 of 300", "relevo explain runs/maths"],
    );
    assert_eq!(said.stdout.trim(), place.read("runs/maths/report.txt").trim());
    assert_holds(&place.read("runs/maths/report.json"), &["\"relevo.report/v1\"", "\"episodes\": 300"]);
    assert_holds(&place.read("runs/maths/policy.json"), &["\"relevo.policy/v1\"", "\"episodes\": 300"]);
    for picture in FILES.iter().filter(|name| name.ends_with(".svg")) {
        let svg = place.read(&format!("runs/maths/{picture}"));
        assert!(svg.trim_start().starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{picture}");
        for tag in ["svg", "g", "text", "marker", "defs"] {
            let opened = svg.matches(&format!("<{tag} ")).count() + svg.matches(&format!("<{tag}>")).count();
            let closed = svg.matches(&format!("</{tag}>")).count();
            assert!(opened == closed, "{picture}: {opened} <{tag}> and {closed} </{tag}>");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{picture}");
    }
    assert_eq!(fs::read_dir(place.path("runs/maths")).unwrap().count(), FILES.len(), "nothing else is left");
}

#[test]
fn every_run_has_its_folder() {
    let place = Maths::new();
    let first = place.learn("--episodes 100");
    let second = place.learn("--episodes 100");
    assert_holds(&first.stderr, &["into runs/maths\n"]);
    assert_holds(&second.stderr, &["into runs/maths-2\n"]);
    same_run(&place.run("runs/maths"), &place.run("runs/maths-2"));
    let third = place.learn("--episodes 100 --seed 9 --out deep/er");
    assert_holds(&third.stderr, &["seed 9", "into deep/er\n"]);
    assert_ne!(place.run("deep/er")[0], place.run("runs/maths")[0]);

    let before = place.run("runs/maths");
    let message = place.error("learn team.toml --episodes 100 --out runs/maths");
    assert_holds(&message, &["runs/maths", "already holds a run", "--resume", "--out"]);
    same_run(&before, &place.run("runs/maths"));
    let message = place.error("learn team.toml --resume --out nothing");
    assert_holds(&message, &["nothing", "no run to resume", "leave --resume out"]);
    let other = Maths::new();
    let message = other.error("learn team.toml --resume");
    assert_holds(&message, &["no run of \"maths\"", "leave --resume out"]);
    let message = place.error("learn team.toml --resume --out runs/maths --seed 2");
    assert_holds(&message, &["--seed 1 --episodes 100", "--out"]);

    // A whole run is measured again; by default it is the newest.
    let again = place.learn("--resume");
    assert_holds(&again.stderr, &["resuming runs/maths-2 after 100 of 100 episodes"]);
    assert_eq!(again.stdout, second.stdout);
    same_run(&before, &place.run("runs/maths-2"));
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let place = Maths::new();
    place.write("file", "");
    let message = place.error("learn team.toml --out file/run");
    assert_holds(&message, &["file/run", "cannot be made"]);
    // A run whose policy cannot be put into place.
    fs::create_dir_all(place.path("taken/policy.json/inside")).unwrap();
    let message = place.relevo("learn team.toml --episodes 50 --out taken");
    assert_eq!((message.code, message.stdout.as_str()), (Some(1), ""));
    assert_holds(&message.stderr, &["error: taken/policy.json", "cannot be written"]);
}

// ---- broken off ----

/// Enough for a second or so.
const LONG: &str = "--episodes 12000";

#[test]
fn ctrl_c_loses_nothing() {
    let place = Maths::new();
    place.learn(&format!("{LONG} --out whole"));
    let mut child = place.command(&format!("learn team.toml {LONG}")).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("\nepisode ") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "it never began: {said}");
    }
    let message = place.error("learn team.toml --resume");
    assert_holds(&message, &["runs/maths/ledger.cbor", "another process is writing"]);
    signal(&child, "INT");
    stderr.read_to_string(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0), "{said}");
    assert_holds(&said, &["stopped after ", " of 12000 episodes", "nothing learned is lost"]);
    // What was learned so far can be looked at.
    assert_holds(&place.data("explain runs/maths"), &["policy of \"maths\"", "commissioner at"]);
    // The command that it tells is the one that works.
    let next = said.lines().find_map(|l| l.trim().strip_prefix("relevo ")).expect("it tells how to go on");
    assert_eq!(next, "learn team.toml --resume --out runs/maths");
    let resumed = place.relevo(next);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_holds(&resumed.stderr, &["resuming runs/maths after ", " of 12000 episodes"]);
    assert!(!resumed.stderr.contains("dropped"), "{}", resumed.stderr);
    same_run(&place.run("whole"), &place.run("runs/maths"));
}

/// Killed again and again, a little after the ledger has reached a length; the moments are drawn by a seed.
#[test]
fn kill_loses_nothing() {
    let place = Maths::new();
    place.learn(&format!("{LONG} --out whole"));
    let whole = fs::metadata(place.path("whole/ledger.cbor")).unwrap().len();
    let ledger = place.path("killed/ledger.cbor");
    let length = || fs::metadata(&ledger).map_or(0, |data| data.len());
    let mut rng = Rng::stream(5, "moments of kill");
    let mut moments: Vec<u64> = (0..5).map(|_| (rng.unit() * 0.9 * whole as f64) as u64).collect();
    moments.extend([0, 1]);
    moments.sort_unstable();
    let learn = |resume: bool| match resume {
        true => place.command("learn team.toml --resume --out killed"),
        false => place.command(&format!("learn team.toml {LONG} --out killed")),
    };
    for moment in moments {
        if length() == 0 {
            let _ = fs::remove_file(&ledger);
        }
        let mut child = learn(length() > 0).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        while length() < moment && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros((rng.unit() * 20_000.0) as u64));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let last = Said::new(learn(length() > 0).output().unwrap());
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    same_run(&place.run("whole"), &place.run("killed"));
}

/// `relevo learn ... | head -1`, and both streams gone.
#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let place = Maths::new();
    let mut child = place.command("learn team.toml --episodes 100").spawn().unwrap();
    drop(child.stdout.take());
    let said = Said::new(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let mut child = place.command("learn team.toml --episodes 100 --out blind").spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    same_run(&place.run("runs/maths"), &place.run("blind"));
    let mut child = place.command("explain nothing").spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

// ---- explain, run, policy ----

#[test]
fn explain_says_what_is_done_and_why() {
    let place = Maths::new();
    place.learn("--episodes 400");
    let all = place.data("explain runs/maths");
    assert_eq!(all, place.data("explain runs/maths/policy.json"));
    assert_holds(&all, &["policy of \"maths\": 400 episodes, seed 1, ledger "]);
    for agent in ["commissioner", "editor", "thinker", "checker"] {
        assert_holds(&all, &[&format!("\n{agent} at dataset=mathqa")]);
    }
    let one = place.data("explain runs/maths dataset=mathqa");
    assert!(one.len() < all.len() && !one.contains("mmlu"), "{one}");
    assert_holds(&one, &["→ ", "mean of targets", " ± ", "%"]);
    let key = one.split(['[', ']']).nth(1).unwrap();
    let by_key = place.data(&format!("explain runs/maths {key}"));
    assert_eq!(by_key.matches("\ncommissioner at ").count(), 1, "{by_key}");
    assert_holds(&place.error("explain runs/maths dataset=mathqu"), &["did you mean \"dataset=mathqa\"?"]);
    assert_holds(
        &place.error("explain runs/maths qqqqqqqqqqqqqqqqqqqqq"),
        &["some that are known", "dataset="],
    );
    assert_holds(&place.error("explain runs/none"), &["runs/none", "cannot be read", "relevo learn"]);
    assert_holds(&place.error("explain runs"), &["runs/policy.json", "cannot be read"]);
}

#[test]
fn run_shows_every_handoff() {
    let place = Maths::new();
    place.learn("--episodes 3000");
    let mut solved = 0;
    for problem in 0..6 {
        place.write("item", &format!("{{\"dataset\": \"mmlu-elementary\", \"problem\": {problem}}}"));
        let said = place.relevo("run team.toml --policy runs/maths --input item --output out");
        let right = said.stdout.contains("quality 1\n");
        assert_eq!(said.code, Some(if right { 0 } else { 2 }), "{}", said.stdout);
        solved += u32::from(right);
        assert_holds(&said.stdout, &["1  commissioner", "handed to", "value (visits): ", "finish", "return"]);
        assert_holds(&said.stdout, &[&format!("mmlu-elementary problem {problem}: finished after ")]);
        // One line for every call, between the head and the last line.
        let calls: usize =
            said.stdout.rsplit("after ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(said.stdout.lines().count(), calls + 3, "{}", said.stdout);
        assert_eq!(said.stderr, "what came out is in out\n");
    }
    assert!(solved >= 4, "{solved} of 6 easy problems");
}

#[test]
fn run_names_what_it_cannot_use() {
    let place = Maths::new();
    place.learn("--episodes 100");
    let run = "run team.toml --policy runs/maths --input item";
    assert_holds(&place.error(run), &["item", "cannot be read"]);
    for (item, said) in [
        ("{", "{\"dataset\": \"mathqa\", \"problem\": 17}"),
        ("[]", "{\"dataset\": \"mathqa\", \"problem\": 17}"),
        ("{\"dataset\": \"mathqa\", \"problem\": -1}", "\"problem\": 17"),
        ("{\"dataset\": \"mathq\", \"problem\": 1}", "did you mean \"mathqa\"?"),
    ] {
        place.write("item", item);
        assert_holds(&place.error(run), &["item: ", said]);
    }
    place.write("item", "{\"dataset\": \"mathqa\", \"problem\": 1}");
    let team = place.read("team.toml");
    let renamed = team
        .replace("\"commissioner\"", "\"chief\"")
        .replace("simulate = \"chief\"", "simulate = \"commissioner\"");
    place.write("other.toml", &renamed.replace("name = \"maths\"", "name = \"others\""));
    let learned = place.relevo("learn other.toml --episodes 50");
    assert_eq!(learned.code, Some(0), "{}", learned.stderr);
    let message = place.error("run team.toml --policy runs/others --input item");
    assert_holds(&message, &["no agent \"commissioner\"", "chief", "another team"]);
    place.write("fewer.toml", &team.replace("[\"editor\", \"thinker\"]", "[\"thinker\", \"editor\"]"));
    let message = place.error("run fewer.toml --policy runs/maths --input item");
    assert_holds(&message, &["\"commissioner\"", "editor, thinker", "thinker, editor", "learn again"]);
    assert_holds(
        &place.error("run none.toml --policy runs/maths --input item"),
        &["none.toml", "cannot be read"],
    );
}

#[test]
fn policies_are_compared() {
    let place = Maths::new();
    place.learn("--episodes 60 --out a");
    place.learn("--episodes 60 --out b");
    place.learn("--episodes 60 --seed 2 --out c");
    let same = place.data("policy diff a b");
    assert_holds(&same, &["0 situations decided otherwise", "largest change of value 0.0000"]);
    let differs = place.relevo("policy diff a c/policy.json");
    assert_eq!((differs.code, differs.stderr.as_str()), (Some(1), ""));
    assert_holds(
        &differs.stdout,
        &["decided otherwise:\n", " → ", "only in the second", "only in the first"],
    );
    let missing = place.relevo("policy diff a none");
    assert_eq!(missing.stdout, "");
    assert_holds(&missing.stderr, &["error: none", "cannot be read"]);
}

#[test]
fn policies_are_merged() {
    let place = Maths::new();
    place.learn("--episodes 60 --out a");
    place.learn("--episodes 40 --seed 2 --out b");
    let said = place.data("policy merge a b/policy.json --out both.json");
    let numbers = |row: &str| {
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with(row))
            .unwrap_or_else(|| panic!("{row}: {said}"));
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>()
    };
    let [a, b] = ["a ", "b/policy.json"].map(numbers);
    let [shared, both] = ["in more than one", "both.json"].map(numbers);
    // What is in both counts once.
    assert!(shared[0] > 0 && shared[1] >= shared[0], "{said}");
    for column in 0..2 {
        assert_eq!(a[column] + b[column] - shared[column], both[column], "{said}");
    }
    assert_eq!([a[2], b[2], both[2]], [60, 40, 100]);
    assert_holds(&place.data("explain both.json"), &["100 episodes", "merged of 2 policies"]);
    // It decides like any other, and is not written over by chance.
    place.write("item", "{\"dataset\": \"mathqa\", \"problem\": 1}");
    let run = place.relevo("run team.toml --policy both.json --input item");
    assert_holds(&run.stdout, &["commissioner", "value (visits)"]);
    let before = place.read("both.json");
    assert_holds(&place.error("policy merge b a --out both.json"), &["both.json", "--force"]);
    assert_eq!(place.read("both.json"), before);
    place.data("policy merge b a --out both.json --force");
    assert_ne!(place.read("both.json"), before);
    // Nothing counts twice.
    assert_holds(&place.error("policy merge a both.json --out more.json"), &["would count twice"]);
    assert!(!place.path("more.json").exists());
    let one = place.relevo("policy merge a --out more.json");
    assert_eq!((one.code, one.stdout.as_str()), (Some(2), ""));
}

#[test]
fn a_policy_that_was_tampered_with_is_refused_with_the_place() {
    let place = Maths::new();
    place.learn("--episodes 100");
    place.write("item", "{\"dataset\": \"mathqa\", \"problem\": 1}");
    let good = place.read("runs/maths/policy.json");
    let value = good.lines().position(|l| l.trim_start().starts_with("\"value\": 0.")).unwrap();
    // The number in that line, changed.
    let edit = |new: &str| {
        let (name, _) = good.lines().nth(value).unwrap().split_once(": ").unwrap();
        let changed = format!("{name}: {new},");
        let lines = good.lines().enumerate().map(|(i, line)| if i == value { &changed } else { line });
        lines.map(|line| line.to_owned() + "\n").collect::<String>()
    };
    let nan = format!("line {}", value + 1);
    let reformatted = good.replacen("  \"source\"", "   \"source\"", 1);
    let policies: [(String, &[&str]); 8] = [
        (edit("0.25"), &["digest of agent \"", "changed after it was written"]),
        (good.replacen("\"seed\": 1", "\"seed\": 2", 1), &["digest of the file", "changed"]),
        (good[..good.len() / 2].to_owned(), &["EOF", "line"]),
        (
            good.replacen("relevo.policy/v1", "relevo.policy/v9", 1),
            &["\"relevo.policy/v9\"", "\"relevo.policy/v1\""],
        ),
        (edit("NaN"), &[&nan, "cannot be read"]),
        (edit("1e999"), &[&nan, "out of range"]),
        (reformatted, &["line 3 ", "reformatted"]),
        (String::new(), &["EOF"]),
    ];
    for (text, said) in policies {
        place.write("bad.json", &text);
        for verb in [
            "explain bad.json",
            "run team.toml --policy bad.json --input item",
            "policy diff runs/maths bad.json",
            "policy merge runs/maths bad.json --out merged.json",
        ] {
            let message = place.error(verb);
            assert!(message.starts_with("bad.json: "), "{verb}: {message}");
            assert_holds(&message, said);
        }
    }
}

// ---- the rest ----

#[test]
fn what_does_not_exist_is_answered_with_what_does() {
    let place = Maths::new();
    let wrong: [(&str, &[&str]); 9] = [
        ("", &["Usage: relevo", "learn", "explain"]),
        ("lern team.toml", &["lern", "learn"]),
        ("learn", &["<TEAM>"]),
        ("learn team.toml --episods 3", &["--episods", "--episodes"]),
        ("learn team.toml --episodes 0", &["--episodes", "0"]),
        ("learn team.toml --episodes many", &["--episodes", "many"]),
        ("learn team.toml --seed -1", &["-1"]),
        ("run team.toml", &["--policy", "--input"]),
        ("policy", &["diff"]),
    ];
    for (arguments, parts) in wrong {
        let said = place.relevo(arguments);
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{arguments}: {}", said.stderr);
        assert_holds(&said.stderr, parts);
    }
    assert_holds(&place.error("learn none.toml"), &["none.toml", "team file cannot be read"]);
    let team = place.read("team.toml");
    let line = 1 + team.lines().position(|l| l.starts_with("discount")).unwrap();
    place.write("team.toml", &team.replace("discount", "discont"));
    let message = place.error("learn team.toml");
    assert_holds(&message, &[&format!("team.toml:{line}: "), "did you mean \"discount\"?"]);
    place.write("team.toml", &team.replace("maths@1", "math@1"));
    assert_holds(&place.error("learn team.toml"), &["team.toml: ", "did you mean \"maths@1\"?"]);
    place.write("team.toml", &team.replace("simulate = \"editor\"", "simulate = \"edtor\""));
    assert_holds(&place.error("learn team.toml"), &["team.toml: ", "did you mean \"editor\"?"]);
    assert!(!place.path("runs").exists());
}

#[test]
fn help_tells_what_there_is() {
    let place = Maths::new();
    let verbs: [(&str, &[&str]); 12] = [
        ("", &["learn", "run", "explain", "policy", "lab", "exactly one", "examples/maths/team.toml"]),
        ("learn", &["<TEAM>", "--episodes <N>", "--seed <S>", "--out <DIR>", "--resume", "default"]),
        ("run", &["<TEAM>", "--policy <POLICY>", "--input <FILE>", "--output <FILE>"]),
        ("explain", &["<POLICY>", "[SITUATION|DECISION]", "--team <FILE>", "exits with 1"]),
        ("report", &["<RUN>", "--task <N>", "--json", "--out <FILE.html>", "session.html"]),
        ("lab", &["list", "run", "report", "play"]),
        ("lab run", &["<NAME>", "--seeds <A..B>", "--quick", "--out <DIR>", "--resume"]),
        ("lab report", &["[DIR]", "--out <FILE>"]),
        ("lab play", &["[ENVIRONMENT]", "--seed <N>"]),
        ("policy", &["diff", "merge"]),
        ("policy diff", &["<A>", "<B>", "Exits with 1"]),
        ("policy merge", &["<POLICY>", "--out <FILE>", "--force"]),
    ];
    for (verb, parts) in verbs {
        let help = place.data(&format!("{verb} --help"));
        assert_holds(&help, parts);
        assert_holds(&help, &["Usage: relevo"]);
        assert!(help.lines().all(|l| l.chars().count() <= 110), "{help}");
        assert!(place.data(&format!("{verb} -h")).len() <= help.len());
    }
    assert_holds(&place.data("--version"), &["relevo ", env!("CARGO_PKG_VERSION")]);
    assert!(Path::new(env!("CARGO_BIN_EXE_relevo")).is_file());
}
