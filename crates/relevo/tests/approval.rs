//! Questions to a person and the kill switch, on disk: what survives, who wins, and that all doubt is a no.

use std::{fs, path::PathBuf, sync::Barrier, thread};

use relevo::{
    agent::HandoffLabel,
    approval::{Approvals, Asked, Decision, FOLDER, Standing, TEXT_BYTES_MAX, question_id},
    guard::Cost,
    stop,
};
use tempfile::TempDir;

const ID: &str = "12-3-4-approval";

struct Run(TempDir);

impl Run {
    fn new() -> Self {
        Run(tempfile::tempdir().unwrap())
    }

    fn approvals(&self) -> Approvals {
        Approvals::of(self.0.path())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(FOLDER).join(format!("{ID}.json"))
    }
}

fn asked() -> Asked {
    Asked {
        agent: "payer".into(),
        from: "clerk".into(),
        situation: "amount=large".into(),
        task: "7".into(),
        estimate: Cost { tokens: 2000, money: 0.1, ms: 3000 },
        why: "approval".into(),
    }
}

fn denied(standing: Standing) -> String {
    match standing {
        Standing::Denied(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_waits_is_answered_once_and_is_found_again() {
    let run = Run::new();
    assert_eq!(question_id(&HandoffLabel("12/3/4".into()), "approval"), ID);
    assert_eq!(run.approvals().ask(ID, asked(), 1000, None).unwrap(), Standing::Pending);
    // After a restart the same is asked again, and is still the first question.
    assert_eq!(run.approvals().ask(ID, asked(), 9000, Some(1)).unwrap(), Standing::Pending);
    let list = run.approvals().list(u64::MAX).unwrap();
    assert_eq!((list.len(), list[0].approval.as_ref().unwrap().asked_at), (1, 1000));
    let approval = run.approvals().decide(ID, Decision::Approved, "ann", "fine", 2000).unwrap();
    assert_eq!(approval.answer.unwrap().by, "ann");
    assert_eq!(run.approvals().ask(ID, asked(), 9000, None).unwrap(), Standing::Approved("ann".into()));
    let error = run.approvals().decide(ID, Decision::Denied, "bob", "", 3000).unwrap_err().to_string();
    assert!(error.contains("was approved by ann already"), "{error}");
    assert_eq!(run.approvals().standing(ID, &asked(), 4000), Standing::Approved("ann".into()));

    run.approvals().ask("other", asked(), 1, None).unwrap();
    run.approvals().decide("other", Decision::Denied, "bob", "too much", 2).unwrap();
    assert_eq!(denied(run.approvals().standing("other", &asked(), 3)), "denied by bob: too much");
}

#[test]
fn nobody_answering_in_time_is_a_no() {
    let run = Run::new();
    run.approvals().ask(ID, asked(), 1000, Some(500)).unwrap();
    assert_eq!(run.approvals().standing(ID, &asked(), 1499), Standing::Pending);
    assert_eq!(denied(run.approvals().standing(ID, &asked(), 1500)), "nobody answered in time");
    let error = run.approvals().decide(ID, Decision::Approved, "ann", "", 1500).unwrap_err().to_string();
    assert!(error.contains("counts as denied") && error.contains("in time"), "{error}");
    // An answer in time holds later too.
    run.approvals().ask("other", asked(), 1000, Some(500)).unwrap();
    run.approvals().decide("other", Decision::Approved, "ann", "", 1499).unwrap();
    assert_eq!(run.approvals().standing("other", &asked(), 9999), Standing::Approved("ann".into()));
}

/// Whatever becomes of the file of an approved question, short of nothing at all, it is no longer approved.
#[test]
fn all_doubt_is_a_no() {
    type Harm = fn(&std::path::Path, String);
    let harms: [(&str, Harm); 9] = [
        ("gone", |path, _| fs::remove_file(path).unwrap()),
        ("cannot be read", |path, text| fs::write(path, &text[..text.len() / 2]).unwrap()),
        ("cannot be read", |path, _| fs::write(path, "").unwrap()),
        ("cannot be read", |path, text| fs::write(path, text.replace("\"by\"", "\"bye\"")).unwrap()),
        ("cannot be read", |path, text| fs::write(path, " ".repeat(1 << 18) + &text).unwrap()),
        ("altered", |path, text| fs::write(path, text.replace("2000", "2001")).unwrap()),
        ("altered", |path, text| fs::write(path, text.replace(ID, "12-3-5-approval")).unwrap()),
        ("is no relevo.approval/v1", |path, text| fs::write(path, text.replace("/v1", "/v2")).unwrap()),
        ("its file is none", |path, text| {
            fs::write(path.with_extension("elsewhere"), text).unwrap();
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink(path.with_extension("elsewhere"), path).unwrap();
        }),
    ];
    for (said, harm) in harms {
        let run = Run::new();
        run.approvals().ask(ID, asked(), 1, None).unwrap();
        run.approvals().decide(ID, Decision::Approved, "ann", "", 2).unwrap();
        assert_eq!(run.approvals().standing(ID, &asked(), 3), Standing::Approved("ann".into()));
        harm(&run.file(), fs::read_to_string(run.file()).unwrap());
        let why = denied(run.approvals().standing(ID, &asked(), 3));
        assert!(why.contains(said), "{said}: {why}");
    }
    // A pending question does not become a yes by writing one into its file.
    let run = Run::new();
    run.approvals().ask(ID, asked(), 1, None).unwrap();
    let answer = r#""answer": {"decision":"approved","by":"me","note":"","decided_at":2}"#;
    let text = fs::read_to_string(run.file()).unwrap();
    fs::write(run.file(), text.replace("\"answer\": null", answer)).unwrap();
    assert_ne!(text, fs::read_to_string(run.file()).unwrap());
    assert_eq!(denied(run.approvals().ask(ID, asked(), 3, None).unwrap()), "its file was altered");
    assert_eq!(denied(run.approvals().list(3).unwrap().remove(0).standing), "its file was altered");

    // An approval is of what was asked, and of nothing else.
    let run = Run::new();
    run.approvals().ask(ID, asked(), 1, None).unwrap();
    run.approvals().decide(ID, Decision::Approved, "ann", "", 2).unwrap();
    fs::copy(run.file(), run.file().with_file_name("5-1-0-approval.json")).unwrap();
    let why = denied(run.approvals().ask("5-1-0-approval", asked(), 3, None).unwrap());
    assert_eq!(why, "its file was altered");
    let dearer = Asked { estimate: Cost { money: 0.2, ..asked().estimate }, ..asked() };
    assert_eq!(run.approvals().ask(ID, dearer, 3, None).unwrap(), Standing::Approved("ann".into()));
    let other = Asked { situation: "amount=huge".into(), ..asked() };
    let why = denied(run.approvals().ask(ID, other, 3, None).unwrap());
    assert_eq!(why, "its file asks something else");
}

#[test]
fn of_many_who_answer_at_once_one_does() {
    let run = Run::new();
    for round in 0..20 {
        let id = round.to_string();
        run.approvals().ask(&id, asked(), 1, None).unwrap();
        let barrier = Barrier::new(8);
        let answer = |i: usize| {
            barrier.wait();
            let decision = if i.is_multiple_of(2) { Decision::Approved } else { Decision::Denied };
            run.approvals().decide(&id, decision, &i.to_string(), "", 2).err().map(|e| e.to_string())
        };
        let said: Vec<Option<String>> = thread::scope(|scope| {
            let answer = &answer;
            let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || answer(i))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..8).filter(|i| said[*i].is_none()).collect();
        assert_eq!(winners.len(), 1, "{said:?}");
        for message in said.iter().flatten() {
            assert!(message.contains(&format!("by {} already", winners[0])), "{message}");
        }
        let approved = matches!(run.approvals().standing(&id, &asked(), 3), Standing::Approved(_));
        assert_eq!(approved, winners[0].is_multiple_of(2));
    }
}

#[test]
fn names_and_texts_are_bounded() {
    let run = Run::new();
    for id in ["", "../x", ".hidden", "a/b", "a b", &"x".repeat(129), "\u{1b}[2J"] {
        assert!(
            run.approvals().ask(id, asked(), 1, None).unwrap_err().to_string().contains("names no question")
        );
    }
    let long = Asked { situation: "\u{1}".repeat(1 << 20), ..asked() };
    assert_eq!(run.approvals().ask(ID, long.clone(), 1, None).unwrap(), Standing::Pending);
    assert!(fs::metadata(run.file()).unwrap().len() < 32_000);
    let note = "n".repeat(TEXT_BYTES_MAX + 1);
    assert!(run.approvals().decide(ID, Decision::Approved, "ann", &note, 2).is_err());
    run.approvals().decide(ID, Decision::Approved, "ann", "", 2).unwrap();
    assert_eq!(run.approvals().standing(ID, &long, 3), Standing::Approved("ann".into()));
}

#[test]
fn the_kill_switch_is_a_file_and_remembers() {
    let run = Run::new();
    let path = run.0.path();
    assert!(!stop::is_ordered(path) && stop::standing(path).is_none());
    assert_eq!(stop::lift(path, "ann", 1).unwrap(), None);
    let order = stop::order(path, "ann", "it spends too much", 2).unwrap();
    assert!(stop::is_ordered(path));
    assert_eq!(stop::order(path, "bob", "me too", 3).unwrap(), order, "the first order stands");
    assert_eq!(stop::lift(path, "bob", 4).unwrap(), Some(order));
    assert!(!stop::is_ordered(path));
    let history = fs::read_to_string(path.join(stop::HISTORY_FILE)).unwrap();
    assert_eq!(
        history,
        concat!(
            r#"{"what":"stop","by":"ann","reason":"it spends too much","at":2}"#,
            "\n",
            r#"{"what":"lift","by":"bob","reason":"it spends too much","at":4}"#,
            "\n"
        )
    );
    // `touch STOP` is enough, and so is anything else of that name.
    fs::write(path.join(stop::STOP_FILE), "").unwrap();
    assert_eq!(stop::standing(path).unwrap().by, "unknown");
    fs::remove_file(path.join(stop::STOP_FILE)).unwrap();
    fs::create_dir(path.join(stop::STOP_FILE)).unwrap();
    assert!(stop::is_ordered(path) && stop::standing(path).is_some());
    // Where nobody can look, nothing may run.
    fs::write(path.join("file"), "").unwrap();
    assert!(stop::is_ordered(&path.join("file")));
}
