//! Judges that are asked: one at a time, in groups, and not at all.

use std::num::NonZeroU64;

use relevo::{
    evaluate::{Measured, evaluate},
    judge::{Check, JudgeFailure},
    learn::BrokenOff,
};

use super::{
    files::{Shop, texts},
    *,
};

/// What a judge says of a group, in order: quality and confidence, or nothing.
type Says = fn(&[Candidate]) -> Vec<Option<(f64, f64)>>;

/// A judge who looks at the answers of a group, counts how often it was asked, and is fooled by its canary.
struct Panel {
    asked: AtomicUsize,
    says: Says,
}

#[async_trait]
impl Judge for Panel {
    async fn judge(&self, group: &[Candidate], _: &str) -> Verdict {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let certain = |quality, confidence| Score { confidence, ..Score::certain(quality, "") };
        let scores = (self.says)(group).into_iter().map(|score| score.map(|(q, c)| certain(q, c)));
        let checks = vec![Check::Canary { judge: "panel".into(), quality: 0.75, fooled: true }];
        Verdict { scores: scores.collect(), tokens: 7, checks, ..Verdict::default() }
    }
}

/// A judge whose key is not accepted.
struct LockedOut;

#[async_trait]
impl Judge for LockedOut {
    async fn judge(&self, group: &[Candidate], _: &str) -> Verdict {
        let failure = Failure::Unauthorised("no such key".into());
        let failure =
            JudgeFailure { judge: "panel".into(), candidate: None, failure, last_words: String::new() };
        Verdict { tokens: 7, failures: vec![failure], ..Verdict::none(group.len()) }
    }
}

fn judged(says: Says, group: u64) -> (Stage, Arc<Panel>) {
    let panel = Arc::new(Panel { asked: AtomicUsize::new(0), says });
    let stage = stage(team("policy = { rule = \"epsilon-greedy\", epsilon = 0.3 }", THREE));
    (stage.judged_by(panel.clone(), group.try_into().unwrap()).with_clock(Arc::new(|| 0)), panel)
}

/// A program judges what comes out, while learning and while measuring; one that fails teaches nothing.
#[tokio::test]
async fn a_program_judges() {
    let shop = Shop::new(&texts(&["one", "two"]));
    let judge = "{ rule = \"command\", command = [\"./judge\"] }";
    let says = |script: &str| shop.program("judge", script);
    says("grep -q '[A-Z]' in && s=0.75 || s=0.25; echo \"{\\\"score\\\":$s}\"");
    let stage = shop.stage(judge, &["upper", "crash"]).unwrap();
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(1, 30)).unwrap();
    let left = finish(&mut session, out.path()).await;
    let qualities: Vec<f64> = left.ends.iter().filter_map(|end| end.quality).collect();
    assert_eq!(qualities.len(), 30, "{qualities:?}");
    assert!(qualities.contains(&0.75) && qualities.contains(&0.25), "{qualities:?}");
    let task = stage.tasks().evaluation(0).unwrap().unwrap();
    let learners = session.participants().iter().map(|p| p.learner()).collect();
    let walk =
        walk(&stage, &mut stage.guard(), task, 0, Usual::default(), &mut Greedy { learners }).await.unwrap();
    assert_eq!((&walk.artifact.payload[..], walk.quality), (&b"THREE\n"[..], Some(0.75)));

    says("exit 7");
    let left = learn(&stage, config(1, 8)).await;
    assert!(left.ends.iter().all(|end| end.quality.is_none()));
    assert!(!entries(&left.ledger).iter().any(|(_, record)| matches!(record, Record::Finished { .. })));
}

/// Attempts at the same task are judged together, each verdict is paid for once, wherever the run is cut, and what is
/// learned is what the ledger says.
#[tokio::test]
async fn attempts_at_a_task_are_judged_together() {
    let says = |group: &[Candidate]| {
        assert!(group.iter().all(|c| c.task == group[0].task), "another task in the group");
        let better = |c: &Candidate| if c.answer == b"good" { 1.0 } else { 0.0 };
        group.iter().map(|c| Some((better(c), 0.5))).collect()
    };
    let (stage, panel) = judged(says, 4);
    let run = learn(&stage, config(5, 38)).await;
    assert_eq!(
        (run.ends.len(), panel.asked.load(Ordering::Relaxed)),
        (38, 10),
        "nine groups of four, and the rest"
    );
    let of = |is: fn(&Record) -> bool| entries(&run.ledger).iter().filter(|(_, record)| is(record)).count();
    let ended = run.ends.iter().filter(|end| end.quality.is_some()).count();
    assert_eq!(of(|r| matches!(r, Record::Judged { .. })), ended);
    assert_eq!(of(|r| matches!(r, Record::Trusted { .. })), ended);
    assert_eq!(of(|r| matches!(r, Record::Tried { fooled: true, .. })), 10);
    for i in 1..=40 {
        let cut = 200 + (run.ledger.len() - 200) * i / 40;
        let out = folder();
        fs::write(ledger_of(out.path()), &run.ledger[..cut]).unwrap();
        let (before, groups) = (panel.asked.load(Ordering::Relaxed), |bytes: &[u8]| {
            let tokens = |(_, record): (usize, Record)| match record {
                Record::Judged { usage, .. } => usage.tokens / 7,
                _ => 0,
            };
            entries(bytes).into_iter().map(tokens).sum::<u64>() as usize
        });
        let (mut session, _) = Session::resume(&stage, out.path(), None, None).unwrap();
        let resumed = finish(&mut session, out.path()).await;
        drop(session);
        let asked = panel.asked.load(Ordering::Relaxed) - before;
        assert_eq!(groups(&resumed.ledger), groups(&run.ledger[..cut]) + asked, "cut at byte {cut}");
        let (whole, _) = Session::resume(&stage, out.path(), None, None).unwrap();
        assert_eq!(whole.policy().to_text(), resumed.policy, "cut at byte {cut}: not the fold of its ledger");
    }
}

/// Without a score there is nothing to learn from: the end of a task moves nothing, and is no zero.
#[tokio::test]
async fn no_score_is_no_update() {
    let (stage, _) = judged(|group| vec![None; group.len()], 1);
    let left = learn(&stage, config(5, 30)).await;
    assert!(left.ends.iter().all(|end| end.quality.is_none()));
    let settled_ends =
        entries(&left.ledger).iter().filter(|(_, r)| matches!(r, Record::Finished { .. })).count();
    let expired = entries(&left.ledger).iter().filter(|(_, r)| matches!(r, Record::Expired { .. })).count();
    let finished = left.ends.iter().filter(|end| end.stop.word() == "finished").count();
    assert_eq!((settled_ends, expired), (30 - finished, finished));
}

/// What all arms made of a task is compared at once, so that they are on one scale.
#[tokio::test]
async fn arms_are_compared_with_each_other() {
    let says = |group: &[Candidate]| {
        assert!(group.len() > 1 && group.iter().all(|c| c.task == group[0].task), "{group:?}");
        group.iter().enumerate().map(|(i, _)| Some((1.0 / (1 + i) as f64, 1.0))).collect()
    };
    let (stage, panel) = judged(says, 2);
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(5, 40)).unwrap();
    finish(&mut session, out.path()).await;
    panel.asked.store(0, Ordering::Relaxed);
    let learners = session.participants().iter().map(|p| p.learner()).collect();
    let measured = evaluate(&stage, &mut stage.guard(), learners, Usual::default(), |_| {}).await.unwrap();
    let Measured { arms, judges } = measured;
    assert_eq!(
        (panel.asked.load(Ordering::Relaxed), judges.groups, judges.tokens),
        (2, 2, 14),
        "once a task"
    );
    assert_eq!((judges.canaries, judges.fooled), (2, 2));
    for (place, arm) in arms.iter().enumerate() {
        let quality = 1.0 / (1 + place) as f64;
        for walk in &arm.walks {
            assert_eq!(walk.quality, Some(quality), "{}", arm.name);
            let cost = 0.1 * f64::from(walk.spent.calls);
            assert!((walk.walk_return - (quality - cost)).abs() < 1e-12, "{}", arm.name);
        }
    }
}

/// What judges use up counts against the budget of the run; and a run whose judge will never answer again stops.
#[tokio::test]
async fn judges_cost_what_they_cost() {
    let all_good: Says = |group| group.iter().map(|_| Some((1.0, 1.0))).collect();
    let panel = Panel { asked: AtomicUsize::new(0), says: all_good };
    let judges: [(&str, Arc<dyn Judge>, &str); 2] = [
        ("session_budget = { tokens = 500 }", Arc::new(panel), "budget-tokens"),
        ("halt_on = [\"auth\"]", Arc::new(LockedOut), "terminal-error"),
    ];
    for (guards, judge, why) in judges {
        let agents = format!("{THREE}\n[guards]\n{guards}");
        let stage = stage(team("policy = { rule = \"epsilon-greedy\", epsilon = 0.3 }", &agents));
        let stage = stage.judged_by(judge, NonZeroU64::MIN).with_clock(Arc::new(|| 0));
        let out = folder();
        let mut session = Session::start(&stage, out.path(), config(1, 200)).unwrap();
        let mut ends = vec![];
        let flow = session.run(|end| {
            ends.push(end.clone());
            ControlFlow::Continue(())
        });
        assert!(flow.await.unwrap().is_break(), "{why}");
        let Some(BrokenOff::Guarded(reason)) = session.broken_off() else { panic!("{why}") };
        assert_eq!(reason.word(), why);
        let finished: Vec<_> = ends.iter().filter(|end| end.stop.word() == "finished").collect();
        let tokens: u64 = ends.iter().map(|end| end.spent.tokens).sum::<u64>() + 7 * finished.len() as u64;
        match why {
            "terminal-error" => assert_eq!(finished.len(), 1, "only a judge that is asked can fail"),
            // No call is made that is expected to cost more than is left.
            _ => assert!((450..600).contains(&tokens), "{tokens}"),
        }
    }
}
