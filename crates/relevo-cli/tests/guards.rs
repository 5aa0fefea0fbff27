//! `relevo approvals` and `relevo stop` as a person meets them.

use std::{
    fs,
    process::{Command, Output},
};

use relevo::{
    approval::{Approvals, Asked, Standing},
    guard::Cost,
    stop,
};
use tempfile::TempDir;

const LONG_AGO: u64 = 1_000_000_000_000;

fn asked(task: &str) -> Asked {
    Asked {
        agent: "payer".into(),
        from: "clerk".into(),
        situation: "amount=large\u{1b}[2J".into(),
        task: task.into(),
        estimate: Cost { tokens: 2000, money: 0.1, ms: 3000 },
        why: "approval".into(),
    }
}

/// A run that asks: two questions wait, one is over, and the file of one is damaged.
fn run() -> TempDir {
    let run = tempfile::tempdir().unwrap();
    let approvals = Approvals::of(run.path());
    approvals.ask("1-1-0-approval", asked("one"), LONG_AGO, None).unwrap();
    approvals.ask("2-1-0-approval", asked("two"), LONG_AGO + 1, None).unwrap();
    approvals.ask("3-1-0-approval", asked("three"), LONG_AGO, Some(1000)).unwrap();
    fs::write(run.path().join("approvals/4-1-0-approval.json"), "{}").unwrap();
    run
}

/// `relevo` in the folder `run`: exit code, standard output, standard error.
fn relevo(run: &TempDir, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
    command.args(arguments).current_dir(run.path()).env("USER", "ann");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// What is printed on success.
fn data(run: &TempDir, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = relevo(run, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

/// The one line that a failure says.
fn error(run: &TempDir, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = relevo(run, arguments);
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn what_waits_is_listed_and_what_is_damaged_is_said() {
    let run = run();
    let (code, stdout, stderr) = relevo(&run, &["approvals", "list", "."]);
    assert_eq!(code, 0);
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(&rows[0][..5], ["question", "stands", "asks", "agent", "from"]);
    assert_eq!(&rows[2][..6], ["1-1-0-approval", "pending", "approval", "payer", "clerk", "one"]);
    assert_eq!((rows.len(), rows[3][0]), (4, "2-1-0-approval"), "only what waits, the oldest first");
    assert!(!stdout.contains('\u{1b}'), "a terminal would obey it: {stdout:?}");
    assert!(
        stderr.starts_with("warning: question \"4-1-0-approval\" counts as denied: its file cannot be read")
    );
    let all = data(&run, &["approvals", "list", ".", "--all"]);
    assert_eq!((all.lines().count(), all.matches(" denied").count()), (6, 2), "{all}");

    let json: serde_json::Value =
        serde_json::from_str(&data(&run, &["approvals", "list", ".", "--all", "--json"])).unwrap();
    let standings: Vec<_> = json.as_array().unwrap().iter().map(|q| &q["standing"]).collect();
    assert_eq!(standings, ["pending", "denied", "pending", "denied"]);
    assert_eq!(json[0]["approval"]["asked"]["estimate"]["money"], 0.1);
    assert_eq!(json[1]["denied_because"], "nobody answered in time");

    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        relevo(&empty, &["approvals", "list", "."]),
        (0, "".into(), "nothing is waiting for an answer\n".into())
    );
    assert_eq!(data(&empty, &["approvals", "list", ".", "--json"]), "[]\n");
}

#[test]
fn an_answer_is_kept_and_stays() {
    let run = run();
    let approve = ["approvals", "approve", ".", "1-1-0-approval", "--note", "go on"];
    assert_eq!(data(&run, &approve), "approved 1-1-0-approval: approval for payer, task one\n");
    let json = data(&run, &["approvals", "deny", ".", "2-1-0-approval", "--by", "bob", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["answer"]["decision"], &json["answer"]["by"]), (&"denied".into(), &"bob".into()));

    let approvals = Approvals::of(run.path());
    assert_eq!(
        approvals.standing("1-1-0-approval", &asked("one"), u64::MAX),
        Standing::Approved("ann".into())
    );
    let bob = Standing::Denied("denied by bob".into());
    assert_eq!(approvals.standing("2-1-0-approval", &asked("two"), u64::MAX), bob);

    for (arguments, said) in [
        (["approvals", "deny", ".", "1-1-0-approval"], "was approved by ann already"),
        (["approvals", "approve", ".", "3-1-0-approval"], "counts as denied and cannot be answered: nobody"),
        (
            ["approvals", "approve", ".", "4-1-0-approval"],
            "counts as denied and cannot be answered: its file",
        ),
        (["approvals", "approve", ".", "1-1-0-aproval"], "did you mean \"1-1-0-approval\"?"),
        (["approvals", "approve", ".", "../../etc/passwd"], "is unknown"),
        (
            ["approvals", "approve", "nowhere", "1-1-0-approval"],
            "nowhere: no such folder; name that of a run",
        ),
    ] {
        let message = error(&run, &arguments);
        assert!(message.contains(said), "{arguments:?}: {message}");
    }
}

#[test]
fn a_run_is_stopped_and_the_stop_is_lifted() {
    let run = run();
    assert!(error(&run, &["stop", ".", "--lift"]).contains("was not stopped"));
    assert_eq!(data(&run, &["stop", ".", "--reason", "it loops"]), ".: stopped by ann: it loops\n");
    assert!(stop::is_ordered(run.path()));
    assert_eq!(data(&run, &["stop", ".", "--by", "bob"]), ".: stopped by ann: it loops\n");
    assert_eq!(
        data(&run, &["stop", ".", "--lift", "--by", "bob"]),
        ".: the stop by ann is lifted (it loops)\n"
    );
    assert!(!stop::is_ordered(run.path()));
    assert!(error(&run, &["stop", "nowhere"]).contains("no such folder"));
}
