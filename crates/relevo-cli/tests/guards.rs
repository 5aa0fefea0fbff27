//! `relevo approvals` and `relevo stop` as a person meets them.

mod place;

use place::{Place, Said};
use relevo::{
    approval::{Approvals, Asked, Standing},
    guard::Cost,
    stop,
};

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
fn run() -> Place {
    let run = Place::new();
    let approvals = Approvals::of(&run.path(""));
    approvals.ask("1-1-0-approval", asked("one"), LONG_AGO, None).unwrap();
    approvals.ask("2-1-0-approval", asked("two"), LONG_AGO + 1, None).unwrap();
    approvals.ask("3-1-0-approval", asked("three"), LONG_AGO, Some(1000)).unwrap();
    run.write("approvals/4-1-0-approval.json", "{}");
    run
}

#[test]
fn what_waits_is_listed_and_what_is_damaged_is_said() {
    let run = run();
    let Said { code, stdout, stderr } = run.relevo("approvals list .");
    assert_eq!(code, Some(0));
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(&rows[0][..5], ["question", "stands", "asks", "agent", "from"]);
    assert_eq!(&rows[2][..6], ["1-1-0-approval", "pending", "approval", "payer", "clerk", "one"]);
    assert_eq!((rows.len(), rows[3][0]), (4, "2-1-0-approval"), "only what waits, the oldest first");
    assert!(!stdout.contains('\u{1b}'), "a terminal would obey it: {stdout:?}");
    assert!(
        stderr.starts_with("warning: question \"4-1-0-approval\" counts as denied: its file cannot be read")
    );
    let all = run.ok("approvals list . --all");
    assert_eq!((all.lines().count(), all.matches(" denied").count()), (6, 2), "{all}");

    let json: serde_json::Value = serde_json::from_str(&run.ok("approvals list . --all --json")).unwrap();
    let standings: Vec<_> = json.as_array().unwrap().iter().map(|q| &q["standing"]).collect();
    assert_eq!(standings, ["pending", "denied", "pending", "denied"]);
    assert_eq!(json[0]["approval"]["asked"]["estimate"]["money"], 0.1);
    assert_eq!(json[1]["denied_because"], "nobody answered in time");

    let empty = Place::new();
    let said = empty.relevo("approvals list .");
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", "nothing is waiting for an answer\n"));
    assert!(empty.ok("approvals list . --json").starts_with("[]\n"));
}

#[test]
fn an_answer_is_kept_and_stays() {
    let run = run();
    let approve = "approvals approve . 1-1-0-approval --note fine";
    assert_eq!(run.data(approve), "approved 1-1-0-approval: approval for payer, task one\n");
    let json = run.ok("approvals deny . 2-1-0-approval --by bob --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["answer"]["decision"], &json["answer"]["by"]), (&"denied".into(), &"bob".into()));

    let approvals = Approvals::of(&run.path(""));
    assert_eq!(
        approvals.standing("1-1-0-approval", &asked("one"), u64::MAX),
        Standing::Approved("ann".into())
    );
    let bob = Standing::Denied("denied by bob".into());
    assert_eq!(approvals.standing("2-1-0-approval", &asked("two"), u64::MAX), bob);

    for (arguments, said) in [
        ("approvals deny . 1-1-0-approval", "was approved by ann already"),
        ("approvals approve . 3-1-0-approval", "counts as denied and cannot be answered: nobody"),
        ("approvals approve . 4-1-0-approval", "counts as denied and cannot be answered: its file"),
        ("approvals approve . 1-1-0-aproval", "did you mean \"1-1-0-approval\"?"),
        ("approvals approve . ../../etc/passwd", "is unknown"),
        ("approvals approve nowhere 1-1-0-approval", "nowhere: no such folder; name that of a run"),
    ] {
        let message = run.error(arguments);
        assert!(message.contains(said), "{arguments:?}: {message}");
    }
}

#[test]
fn a_run_is_stopped_and_the_stop_is_lifted() {
    let run = run();
    assert!(run.error("stop . --lift").contains("was not stopped"));
    assert_eq!(run.ok("stop . --reason loops"), ".: stopped by ann: loops\n");
    assert!(stop::is_ordered(&run.path("")));
    assert_eq!(run.ok("stop . --by bob"), ".: stopped by ann: loops\n");
    assert_eq!(run.ok("stop . --lift --by bob"), ".: the stop by ann is lifted (loops)\n");
    assert!(!stop::is_ordered(&run.path("")));
    assert!(run.error("stop nowhere").contains("no such folder"));
}
