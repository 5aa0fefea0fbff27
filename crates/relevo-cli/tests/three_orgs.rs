//! The example `three-orgs`: three processes that hand over to each other, with one command, and what crosses between them.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

/// The first of three free ports in a row.
fn ports() -> u16 {
    let listen = |port| TcpListener::bind(("127.0.0.1", port));
    let first = || listen(0).unwrap().local_addr().unwrap().port().min(65_000);
    let three = |first: &u16| (*first..first + 3).all(|port| listen(port).is_ok());
    (0..100).map(|_| first()).find(three).expect("there are three free ports in a row")
}

fn run(arguments: &[&str], folder: &Path) -> (Output, String, String) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/three-orgs/run");
    let output = Command::new(example)
        .args(arguments)
        .current_dir(folder)
        .env("RELEVO", env!("CARGO_BIN_EXE_relevo"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

/// The mean quality of each row of tasks.
fn means(said: &str) -> Vec<f64> {
    let rows = said.lines().filter_map(|line| line.split_once("mean quality "));
    rows.map(|(_, mean)| mean.trim().parse().unwrap()).collect()
}

/// Lines below a heading, up to the next one.
fn below<'t>(said: &'t str, heading: &str) -> Vec<&'t str> {
    let lines = said.lines().skip_while(|line| !line.contains(heading)).skip(1);
    lines.take_while(|line| !line.starts_with("==")).filter(|line| !line.is_empty()).collect()
}

#[test]
fn three_organisations_learn_and_only_value_passing_crosses() {
    let folder = tempfile::tempdir().unwrap();
    let port = ports();
    let (ran, said, told) = run(&["--tasks", "150", "--port", &port.to_string()], folder.path());
    assert!(ran.status.success(), "{said}{told}");
    let means = means(&said);
    assert!(means.len() == 3 && means[2] > means[0] && means[2] >= 0.8, "{means:?}");

    for boundary in ["orga | orgb", "orga | orgc", "orgb | orgc"] {
        let crossed = below(&said, boundary);
        let count = |what: &str| {
            let row = crossed.iter().find_map(|line| line.trim_start().strip_prefix(what)).unwrap();
            row.split_whitespace().map(|n| n.parse::<u64>().unwrap()).sum::<u64>()
        };
        assert!(count("work handed over") > 0, "{boundary}: {crossed:?}");
        assert!(count("one number back for it") <= count("work handed over"), "{boundary}: {crossed:?}");
        assert!(crossed.iter().any(|line| line.contains("\"deadlineMs\":")), "{boundary}: {crossed:?}");
        assert!(crossed.iter().any(|line| line.contains("\"outcome\":")), "{boundary}: {crossed:?}");
    }
    let mut metadata: Vec<String> = below(&said, "all metadata of all messages")
        .iter()
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
        .collect();
    metadata.sort();
    assert_eq!(metadata, ["handoffId", "handoffId deadlineMs", "handoffId outcome", "handoffId v tau r"]);

    let planted = below(&said, "What did not cross");
    assert_eq!(planted.len(), 1 + 3 * 8 + 3, "{planted:?}");
    for line in &planted[1..] {
        let mut counts = line.split_whitespace().rev().map(|n| n.parse::<u64>().unwrap());
        let (crossed, there) = (counts.next(), counts.next());
        assert!(crossed == Some(0) && there > Some(0), "{line}");
    }
    assert_eq!(said.matches(" commits, head ").count(), 3, "{said}");
    for port in port..port + 3 {
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "somebody is left at {port}");
    }

    // What was learned is there again.
    let (ran, said, told) = run(&["--tasks", "20"], folder.path());
    assert!(ran.status.success() && means[0] <= self::means(&said)[0], "{said}{told}");
}

#[test]
fn what_cannot_be_run_is_told_and_nothing_is_left_running() {
    let folder = tempfile::tempdir().unwrap();
    let port = ports();
    for (arguments, message) in
        [(&["--tasks", "none"][..], "--tasks wants a number"), (&["--fast"], "unknown option '--fast'")]
    {
        let (ran, _, told) = run(arguments, folder.path());
        assert!(ran.status.code() == Some(2) && told.contains(message), "{told}");
    }
    let taken = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    let (ran, _, told) = run(&["here", "--port", &port.to_string()], folder.path());
    assert!(!ran.status.success(), "{told}");
    assert!(told.contains("orgb did not start") && told.contains("--fresh --port"), "{told}");
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "orga is left running");
    drop(taken);
    std::fs::write(folder.path().join("mine"), "").unwrap();
    let (ran, _, told) = run(&[".", "--fresh"], folder.path());
    assert!(!ran.status.success() && told.contains("not removed"), "{told}");
}
