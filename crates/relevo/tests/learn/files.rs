//! Programs that act and judge, task files, and what they may not do.

use super::*;

/// A folder with programs and tasks.
pub(super) struct Shop(TempDir);

/// What each program does after reading its line.
const PROGRAMS: [(&str, &str); 6] = [
    ("pass", "echo '{\"ok\":true}'"),
    ("upper", "tr a-z A-Z <in >out && echo '{\"ok\":true,\"tokens\":3}'"),
    ("crash", "exit 3"),
    ("garbage", "echo this is no reply"),
    ("slow", "sleep 30; echo '{\"ok\":true}'"),
    ("refuse", "echo '{\"ok\":false,\"error\":\"not today\"}'"),
];

impl Shop {
    pub(super) fn new(train: &str) -> Self {
        let shop = Shop(folder());
        for (name, script) in PROGRAMS {
            shop.program(name, script);
        }
        for word in ["one", "two", "three"] {
            shop.write(word, &format!("{word}\n"));
        }
        shop.write("train.jsonl", train);
        shop.write("test.jsonl", &texts(&["three"]));
        shop
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn program(&self, name: &str, script: &str) {
        self.write(name, &format!("#!/bin/sh\nread -r _\n{script}\n"));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The team of `pass`, which hands to all the others, which hand to nobody.
    pub(super) fn stage(&self, judge: &str, others: &[&str]) -> Result<Stage, TaskError> {
        self.stage_with("", judge, others)
    }

    fn stage_with(&self, run: &str, judge: &str, others: &[&str]) -> Result<Stage, TaskError> {
        let judge = if judge.starts_with('{') { judge.to_owned() } else { format!("{judge:?}") };
        let mut text = format!(
            "schema = \"relevo.team/v1\"\nname = \"shop\"\nstart = \"pass\"\n[tasks]\ntrain = \"train.jsonl\"\n\
             test = \"test.jsonl\"\njudge = {judge}\nmissing = \"make them first\"\n[run]\n{run}\n[reward]\ncall = -0.1\nfailure = -0.1\n\
             [[agents]]\nname = \"pass\"\ncommand = [\"./pass\"]\nobserves = [\"payload.kind\"]\nhandoffs = {:?}\n",
            [&["finish"], others].concat()
        );
        for name in others {
            let timeout_ms = if *name == "slow" { 100 } else { 30_000 };
            text += &format!(
                "[[agents]]\nname = {name:?}\ncommand = [\"./{name}\"]\nobserves = [\"call.ended\"]\n\
                 handoffs = [\"finish\"]\ntimeout_ms = {timeout_ms}\n"
            );
        }
        let team = TeamSpec::parse(&text).unwrap_or_else(|(line, what)| panic!("{line:?} {what}\n{text}"));
        // Time stands still: it would be the only difference between two runs.
        Ok(Stage::new(team, self.0.path(), None)?.with_clock(Arc::new(|| 0)))
    }
}

/// Tasks whose end is judged by its text.
pub(super) fn texts(words: &[&str]) -> String {
    let upper = |w: &&str| w.to_uppercase();
    let lines = words.iter().map(|w| {
        format!("{{\"id\":{w:?},\"input\":{w:?},\"expect\":{{\"text\":{:?}}},\"notes\":[1]}}\n", upper(w))
    });
    lines.collect()
}

#[tokio::test]
async fn programs_that_fail_are_learned_around() {
    let shop = Shop::new(&texts(&["one", "two"]));
    let stage = shop.stage("text", &["crash", "garbage", "slow", "refuse", "upper"]).unwrap();
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(1, 60)).unwrap();
    let left = finish(&mut session, out.path()).await;
    let task = stage.tasks().evaluation(0).unwrap().unwrap();
    let learners = session.participants().iter().map(|p| p.learner()).collect();
    let walk =
        walk(&stage, &mut stage.guard(), task, 0, Usual::default(), &mut Greedy { learners }).await.unwrap();
    let path: Vec<&str> = walk.turns.iter().map(|t| stage.team().agent_name(t.agent)).collect();
    assert_eq!((path, walk.quality), (vec!["pass", "upper"], Some(1.0)));
    assert_eq!((&walk.artifact.payload[..], walk.spent.calls, walk.spent.failures), (&b"THREE\n"[..], 2, 0));

    // How each of them failed is an observation, and is counted.
    let policy = PolicyFile::from_text(&left.policy).unwrap();
    let ended: BTreeMap<&str, Vec<&str>> = policy.agents[1..]
        .iter()
        .map(|a| (a.name.as_str(), a.tables[0].nodes.iter().map(|n| policy.name(&n.signature)).collect()))
        .collect();
    let expected = [
        ("crash", "crash"),
        ("garbage", "garbage"),
        ("slow", "timeout"),
        ("refuse", "refused"),
        ("upper", "done"),
    ];
    for (agent, how) in expected {
        assert_eq!(ended[agent], [format!("call.ended={how}")], "{agent}");
    }
    let failures = |agent: usize| policy.agents[agent].tables[0].nodes[0].edges[0].failures;
    let tokens = policy.agents[5].tables[0].nodes[0].edges[0].tokens;
    assert!((1..=4).all(|agent| failures(agent) > 0) && failures(5) == 0 && tokens > 0.0);
    // Every episode is sealed before the next: calls leave the process.
    let seals = entries(&left.ledger).iter().filter(|(_, r)| matches!(r, Record::Sealed { .. })).count();
    assert_eq!(seals, 61);
}

/// Killed again and again in the middle of its calls, four at a time: what had come back is not called again, and
/// nothing of the tasks stays once they have ended.
#[tokio::test]
async fn a_call_that_came_back_is_not_repeated() {
    let shop = Shop::new(&texts(&["one", "two"]));
    let log = shop.path("calls");
    let log_and_pass = format!("echo pass >> {log:?}; sleep .01; echo '{{\"ok\":true}}'");
    shop.write("pass", &format!("#!/bin/sh\nread -r _\n{log_and_pass}\n"));
    let stage = shop.stage("text", &["upper", "crash"]).unwrap();
    let out = folder();
    let four = || 4.try_into().unwrap();
    drop(Session::start(&stage, out.path(), config(2, 60)).unwrap());
    let mut kills = 0;
    loop {
        let (session, _) = Session::resume(&stage, out.path(), None, None).unwrap();
        let mut session = session.at_a_time(four());
        let run = session.run(|_| ControlFlow::Continue(()));
        if tokio::time::timeout(std::time::Duration::from_millis(37), run).await.is_ok() {
            break;
        }
        kills += 1;
    }
    let ledger = fs::read(ledger_of(out.path())).unwrap();
    let of_pass = |record: &Record| matches!(record, Record::Called { agent: AgentId(0), .. });
    let recorded = entries(&ledger).iter().filter(|(_, record)| of_pass(record)).count();
    let made = fs::read_to_string(log).unwrap().lines().count();
    assert_eq!(recorded, 60, "one call of the first agent a task");
    assert!(kills >= 3 && made <= recorded + 4 * kills, "{made} calls, {recorded} recorded, {kills} kills");
    assert_eq!(fs::read_dir(out.path().join("outcomes")).unwrap().count(), 0);
}

/// Programs take the time that they take: in rounds, that makes no difference.
#[tokio::test]
async fn rounds_are_the_same_however_long_calls_take() {
    let shop = Shop::new(&texts(&["one", "two"]));
    shop.program("pass", "sleep .00$(($$ % 10)); echo '{\"ok\":true}'");
    let stage = shop.stage_with("jobs = 4\nrounds = true", "text", &["upper", "crash", "garbage"]).unwrap();
    let run = async || {
        let out = folder();
        let session = Session::start(&stage, out.path(), config(5, 40)).unwrap();
        finish(&mut session.at_a_time(stage.team().run.jobs.unwrap()), out.path()).await
    };
    let left = run().await;
    assert!(left == run().await);
    let under_way = |(now, most): (i64, i64), (_, record): (usize, Record)| match record {
        Record::Called { agent: AgentId(0), .. } => (now + 1, most.max(now + 1)),
        Record::Closed { .. } => (now - 1, most),
        _ => (now, most),
    };
    assert_eq!(entries(&left.ledger).into_iter().fold((0, 0), under_way), (0, 4), "four at a time");
}

/// The machine has lost its power: the ledger is on the disk, and what calls brought is not.
#[tokio::test]
async fn a_call_whose_outcome_was_lost_is_made_again() {
    for seed in 0..8 {
        lose_outcomes(seed).await;
    }
}

async fn lose_outcomes(seed: u64) {
    let shop = Shop::new(&texts(&["one", "two"]));
    let power = shop.path("power");
    shop.program("wait", &format!("test -e {power:?} || sleep 30; echo '{{\"ok\":true}}'"));
    let stage = shop.stage("text", &["upper", "wait"]).unwrap();
    let out = folder();
    drop(Session::start(&stage, out.path(), config(seed, 60)).unwrap());
    let resume = || {
        let (session, dropped) = Session::resume(&stage, out.path(), None, None).unwrap();
        (session.at_a_time(4.try_into().unwrap()), dropped)
    };
    // Calls of the first agent, and tasks that have ended.
    let counted = || {
        let ledger = fs::read(ledger_of(out.path())).unwrap();
        let of_pass = |record: &Record| matches!(record, Record::Called { agent: AgentId(0), .. });
        let is_closed = |record: &Record| matches!(record, Record::Closed { .. });
        let records: Vec<Record> = entries(&ledger).into_iter().map(|(_, record)| record).collect();
        (records.iter().filter(|r| of_pass(r)).count(), records.iter().filter(|r| is_closed(r)).count())
    };
    let (mut session, _) = resume();
    tokio::select! {
        _ = session.run(|_| ControlFlow::Continue(())) => panic!("nobody waits"),
        () = async {
            // Until all four wait.
            let (mut before, mut same) = (counted(), 0);
            while same < 20 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                let now = counted();
                (before, same) = (now, if now == before && now.0 > now.1 { same + 1 } else { 0 });
            }
        } => {}
    }
    drop(session);
    for file in fs::read_dir(out.path().join("outcomes")).unwrap() {
        fs::OpenOptions::new().write(true).open(file.unwrap().path()).unwrap().set_len(0).unwrap();
    }
    fs::write(power, "").unwrap();
    let (mut session, dropped) = resume();
    assert!(dropped > 0);
    assert!(session.run(|_| ControlFlow::Continue(())).await.unwrap().is_continue());
    assert_eq!(counted(), (60, 60));
}

#[tokio::test]
async fn an_end_is_judged_by_its_checksum() {
    // That of "ONE" and a line feed.
    let sum = "bd52020371c038c4ad38a8d2df05dfa1a220d40fbe1ae83b63d6010cb527e531";
    let line = format!("{{\"id\":\"one\",\"input\":\"one\",\"expect\":{{\"sha256\":\"{sum}\"}}}}\n");
    let shop = Shop::new(&line);
    shop.write("test.jsonl", &line);
    let stage = shop.stage("sha256", &["upper"]).unwrap();
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(1, 15)).unwrap();
    finish(&mut session, out.path()).await;
    let task = stage.tasks().evaluation(0).unwrap().unwrap();
    let learners = session.participants().iter().map(|p| p.learner()).collect();
    let walk = walk(&stage, &mut stage.guard(), task.clone(), 0, Usual::default(), &mut Greedy { learners })
        .await
        .unwrap();
    assert_eq!((&walk.artifact.payload[..], walk.quality), (&b"ONE\n"[..], Some(1.0)));
    assert_eq!(stage.tasks().quality(&task, &task.artifact), Some(0.0));
    // A file of one's own has no known result.
    shop.write("mine", "mine");
    let mine = stage.tasks().open(&shop.path("mine")).unwrap();
    assert_eq!((stage.tasks().quality(&mine, &mine.artifact), mine.id.as_str()), (None, "mine"));
    assert!(stage.tasks().open(&shop.path("one")).unwrap().expected.is_some());
}

/// An input that has gone missing ends the run with its name; what was learned stays, and the run goes on once the
/// file is back, as if nothing had been.
#[tokio::test]
async fn a_missing_input_loses_nothing() {
    let shop = Shop::new(&texts(&["one", "two"]));
    let stage = shop.stage("text", &["upper"]).unwrap();
    let whole = learn(&stage, config(4, 12)).await;
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(4, 12)).unwrap();
    let result = session.run(|end| {
        if end.episode == 4 {
            for name in ["one", "two"] {
                fs::rename(shop.path(name), shop.path(&format!("{name}.away"))).unwrap();
            }
        }
        ControlFlow::Continue(())
    });
    let message = result.await.unwrap_err().to_string();
    let named = ["one", "two"].iter().any(|name| message.contains(&shop.path(name).display().to_string()));
    assert!(named && message.contains("cannot be read"), "{message}");
    assert_eq!(session.episodes_done(), 5);
    drop(session);
    for name in ["one", "two"] {
        fs::rename(shop.path(&format!("{name}.away")), shop.path(name)).unwrap();
    }
    let (mut session, dropped) = Session::resume(&stage, out.path(), None, None).unwrap();
    assert_eq!((session.episodes_done(), dropped), (5, 0));
    let left = finish(&mut session, out.path()).await;
    assert!(left.ledger == whole.ledger && left.policy == whole.policy);
}

#[test]
fn mistakes_in_task_files_are_answered_with_their_line() {
    let good = texts(&["one"]);
    let sum = |sum: &str| format!("{{\"id\":\"x\",\"input\":\"one\",\"expect\":{{\"sha256\":\"{sum}\"}}}}\n");
    let mistakes = [
        ("text", format!("{good}\nnonsense\n"), ":3: ", "expected"),
        ("text", format!("{good}{{\"id\":\"x\"}}\n"), ":2: ", "input"),
        ("text", format!("{good}{}", good.replace("expect", "expects")), ":2: ", "expects"),
        ("text", format!("{good}{}", sum("00")), ":2: ", "expect.text is missing"),
        ("text", good.replace("\"notes\"", "\"facts\":{\"x\":0.5},\"notes\""), ":1: ", "fraction"),
        ("text", good.replace("\"notes\"", "\"facts\":{\"X\":1},\"notes\""), ":1: ", "\"X\""),
        ("sha256", good.clone(), ":1: ", "64 hexadecimal digits"),
        ("sha256", sum("00"), ":1: ", "64 hexadecimal digits"),
        ("sha256", sum(&"zz".repeat(32)), ":1: ", "64 hexadecimal digits"),
        ("text", String::new(), ": ", "no tasks"),
        ("text", "\n\n".into(), ": ", "no tasks"),
    ];
    for (judge, text, line, said) in mistakes {
        let shop = Shop::new(&text);
        let message = shop.stage(judge, &["upper"]).map(drop).unwrap_err().to_string();
        let place = format!("{}{line}", shop.path("train.jsonl").display());
        assert!(message.starts_with(&place) && message.contains(said), "{text:?}: {message}");
        assert!(!message.contains("line 1"), "two lines are named: {message}");
    }
    let shop = Shop::new(&good);
    fs::remove_file(shop.path("train.jsonl")).unwrap();
    let message = shop.stage("text", &["upper"]).map(drop).unwrap_err().to_string();
    assert!(message.contains("train.jsonl") && message.contains("make them first"), "{message}");
}

#[test]
fn a_role_that_does_not_exist_is_answered_with_the_nearest() {
    let spec = team(PLAIN, &THREE.replace("simulate = \"clerk\"", "simulate = \"clark\""));
    let message =
        Stage::new(spec, Path::new("."), Some(Arc::new(Workshop))).map(drop).unwrap_err().to_string();
    assert!(message.contains("\"clark\"") && message.contains("did you mean \"clerk\"?"), "{message}");
}
