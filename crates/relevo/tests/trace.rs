//! What a run leaves for people: figures are those of its records, decisions are replayed to the bit, and content is kept
//! only where a team asks for it.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    num::NonZeroUsize,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use relevo::{
    learn::{EpisodeEnd, LEDGER_FILE, RunConfig, Session},
    ledger::{Entries, Ledger},
    stage::Stage,
    team::TeamSpec,
    trace::{
        Cast, Columns, Event, Fold, Quantiles, SITUATIONS_MAX, SessionReport, TASKS_MAX, TaskReport,
        Verdicts,
        explain::{DecisionId, ExplainError, Replayed, explain},
        page,
    },
};
use relevo_core::{
    ids::{ActionId, AgentId, EpisodeId, HandoffId, OperationId},
    observation::{ActionSet, Observation, Signature},
    protocol::{Handoff, Next},
    record::{Entry, FORMAT, Reader, Record, Table},
    units::{Confidence, Return, Tau, Usage, Value},
};
use tempfile::TempDir;

// ---- ledgers by hand ----

const DRIVER: AgentId = AgentId::ORIGIN;
const COORDINATOR: AgentId = AgentId(0);

/// A coordinator of two cells.
fn cast() -> Cast {
    let texts = |all: &[&str]| -> Vec<String> { all.iter().map(|text| (*text).to_owned()).collect() };
    let columns = Columns {
        name: "coordinator".into(),
        successors: texts(&["finish"]),
        operations: texts(&["plan#1", "solve#2", "skip:plan#1", "skip:solve#2"]),
    };
    let (agents, programs, participants) = (texts(&["plan", "solve"]), BTreeSet::new(), vec![columns]);
    Cast { team: "pair".into(), agents, programs, participants }
}

fn id(task: u64) -> HandoffId {
    HandoffId::opening(EpisodeId(u128::from(task)))
}

fn seen(situation: u64, columns: &[u32]) -> Observation {
    Observation::of(Signature(situation), columns.iter().copied().map(ActionId).collect::<ActionSet>())
}

fn opened() -> (AgentId, Record) {
    (DRIVER, Record::Opened { format: FORMAT.into(), config: [7; 32], seed: 3, episodes: 9 })
}

fn received(task: u64, situation: u64, columns: &[u32]) -> (AgentId, Record) {
    let handoff = Handoff { id: id(task), to: COORDINATOR, clock: task };
    (COORDINATOR, Record::Received { handoff, observation: seen(situation, columns) })
}

fn decided(task: u64, situation: u64, action: u32, greedy: bool, probabilities: &[f64]) -> (AgentId, Record) {
    let (signature, action, probabilities) = (Signature(situation), ActionId(action), probabilities.into());
    let (handoff, table, position) = (id(task), Table::Operations, 0);
    (COORDINATOR, Record::Decided { handoff, table, signature, action, greedy, probabilities, position })
}

fn called(task: u64, agent: u32, ended: &str, tokens: u64, money: f64, ms: u64) -> (AgentId, Record) {
    let usage = Usage { tokens, failures: u32::from(ended != "done") };
    let (handoff, operation, outcome) = (id(task), OperationId(agent), [0; 32]);
    let (agent, ended) = (AgentId(agent), ended.to_owned());
    (DRIVER, Record::Called { handoff, agent, operation, ended, usage, money, ms, outcome })
}

fn performed(task: u64, usage: Usage, next: Next) -> (AgentId, Record) {
    let (handoff, reward, tau) = (id(task), Return::ZERO, Tau::ONE);
    (COORDINATOR, Record::Performed { handoff, reward, tau, usage, next })
}

fn settled(task: u64, situation: u64, action: u32) -> (AgentId, Record) {
    let (handoff, table, signature, action) =
        (id(task), Table::Operations, Signature(situation), ActionId(action));
    let (reward, tau, target, step) = (Return::ZERO, Tau::ONE, 1.0, 0.5);
    let (usage, spread, lead) = (Usage::default(), None, None);
    let record =
        Record::Settled { handoff, table, signature, action, reward, tau, target, step, usage, spread, lead };
    (COORDINATOR, record)
}

fn closed(task: u64, episode_return: f64, stop: &str) -> (AgentId, Record) {
    (DRIVER, Record::Closed { episode: task, episode_return, handoffs: 0, stop: stop.into(), cost: None })
}

fn fold(
    watched: Option<u64>,
    records: impl IntoIterator<Item = (AgentId, Record)>,
) -> (SessionReport, Option<TaskReport>) {
    let mut fold = Fold::new(cast(), watched);
    records.into_iter().for_each(|(agent, record)| fold.take(&Entry { agent, record }));
    fold.finish()
}

/// A task that ends well, one that is stopped before its second call, and one that waits for a person.
fn three_tasks() -> Vec<(AgentId, Record)> {
    let masked = |guard: &str, action| Record::Masked {
        handoff: id(1),
        guard: guard.into(),
        actions: [ActionId(action)].into(),
    };
    let paused = Record::Paused { handoff: id(2), agent: AgentId(1), why: "approval".into() };
    let granted = Record::Permitted { handoff: id(2), granted: true, by: "ada".into() };
    let used = |tokens| Usage { tokens, failures: 0 };
    vec![
        opened(),
        (DRIVER, Record::Named { signature: Signature(5), name: "state=new".into() }),
        received(0, 5, &[0, 1, 2, 3]),
        decided(0, 5, 0, true, &[0.7, 0.1, 0.1, 0.1]),
        called(0, 0, "done", 10, 0.5, 100),
        performed(0, used(10), Next::Operate(seen(6, &[1, 3]))),
        settled(0, 5, 0),
        decided(0, 6, 1, true, &[0.5, 0.5]),
        called(0, 1, "timeout", 20, 0.25, 300),
        performed(0, Usage { tokens: 20, failures: 1 }, Next::Ended),
        settled(0, 6, 1),
        closed(0, 1.0, "evaluator-done"),
        (DRIVER, masked("breaker", 1)),
        (DRIVER, masked("budget", 3)),
        received(1, 5, &[0, 2]),
        decided(1, 5, 2, false, &[0.5, 0.5]),
        performed(1, Usage::default(), Next::Operate(seen(6, &[1]))),
        decided(1, 6, 1, true, &[1.0]),
        performed(1, Usage::default(), Next::Ended),
        settled(1, 6, 1),
        closed(1, 0.0, "budget-tokens"),
        received(2, 5, &[0, 1]),
        decided(2, 5, 1, true, &[0.5, 0.5]),
        (DRIVER, paused.clone()),
        (DRIVER, granted),
        (DRIVER, paused),
    ]
}

#[test]
fn every_figure_is_that_of_the_records() {
    let (session, trace) = fold(Some(1), three_tasks());
    assert_eq!((session.team.as_str(), session.seed, session.asked), ("pair", 3, 9));
    assert_eq!((session.ended, session.open), (2, 1));
    let totals = session.totals;
    assert_eq!((totals.decisions, totals.explored, totals.settlements), (5, 1, 3));
    assert_eq!((totals.calls, totals.failures, totals.tokens, totals.ms), (2, 1, 30, 400));
    assert_eq!(totals.money, 0.75);
    assert_eq!(session.task_return.unwrap().mean, 0.5);
    assert_eq!(session.stops.to_string(), "budget-tokens 1, evaluator-done 1");
    assert_eq!(session.masked.to_string(), "breaker 1, budget 1");
    assert_eq!(
        (session.questions.to_string(), session.answers.to_string()),
        ("approval 2".into(), "yes: ada 1".into())
    );
    let [plan, solve] = &session.agents[..] else { panic!("{:?}", session.agents) };
    assert_eq!((plan.calls, plan.tasks, plan.chosen, plan.skipped, plan.tokens), (1, 1, 1, 1, 10));
    assert_eq!(plan.ms, Some(Quantiles { p50: 100, p90: 100, p99: 100, max: 100 }));
    assert_eq!((solve.calls, solve.tasks, solve.chosen, solve.skipped), (1, 1, 3, 0));
    assert_eq!((solve.failures.to_string(), solve.share), ("timeout 1".into(), 1.0 / 3.0));
    let most = &session.situations[0];
    assert_eq!((most.situation.as_str(), most.decisions, most.explored), ("state=new", 3, 1));
    assert_eq!(most.choices.to_string(), "plan 1, skip:plan 1, solve 1");
    let states: Vec<(u64, String)> = session.tasks.iter().map(|task| (task.task, task.state())).collect();
    assert_eq!(
        states,
        [
            (0, "evaluator-done".into()),
            (1, "budget-tokens".into()),
            (2, "waits for a person: approval".into())
        ]
    );

    let trace = trace.expect("there is a task 1");
    let decisions: Vec<_> = (trace.timeline.iter())
        .filter_map(|event| if let Event::Decided(decision) = event { Some(decision) } else { None })
        .collect();
    let [first, second] = decisions[..] else { panic!("{:?}", trace.timeline) };
    assert_eq!(
        (first.decision.as_str(), first.policy_version, first.chosen.as_str()),
        ("1.0", 2, "skip:plan")
    );
    let masked: Vec<_> = first.masked.iter().map(|m| (m.guard.as_str(), m.choices.join(" "))).collect();
    assert_eq!(masked, [("breaker", "solve".to_owned()), ("budget", "skip:solve".to_owned())]);
    let choices: Vec<_> = first.choices.iter().map(|c| (c.choice.as_str(), c.probability)).collect();
    assert_eq!(choices, [("plan", 0.5), ("skip:plan", 0.5)]);
    assert_eq!((second.decision.as_str(), second.masked.len()), ("1.1", 0));
    assert_eq!((trace.task.calls, trace.task.masked), (0, 2), "skipping and being stopped are no calls");
}

#[test]
fn what_judging_took_is_told_apart() {
    let judged = |episode, quality| {
        let (confidence, usage) = (Confidence::new(0.5).unwrap(), Usage { tokens: 3, failures: 0 });
        (DRIVER, Record::Judged { episode, quality, confidence, usage, money: 0.25, ms: 7 })
    };
    let (task, mut records) = (2, three_tasks());
    let tried = |check: &str, value, distance, fooled| {
        let (judge, check) = ("panel".to_owned(), check.to_owned());
        (DRIVER, Record::Tried { episode: task, judge, check, value, distance, fooled })
    };
    records.extend([judged(task, Some(0.75)), closed(task, 0.5, "evaluator-done"), judged(9, None)]);
    records.extend([
        tried("canary", Some(0.9), None, true),
        tried("canary", Some(0.1), None, false),
        tried("swap", Some(1.0), None, false),
        tried("swap", Some(0.5), None, false),
        tried("audit", None, Some(0.25), false),
    ]);
    let (session, trace) = fold(Some(task), records);
    let Verdicts { quality, unjudged, tokens, money, ms, .. } = session.judged;
    let Verdicts { canaries, fooled, swap_agreement, audit_agreement, audit_distance, .. } = session.judged;
    assert_eq!((canaries, fooled), (2, 1));
    assert_eq!((swap_agreement, audit_agreement, audit_distance), (Some(0.75), None, Some(0.25)));
    assert_eq!(
        (quality.map(|q| (q.mean, q.n)), unjudged, tokens, money, ms),
        (Some((0.75, 1)), 1, 6, 0.5, 14)
    );
    assert_eq!((session.totals.tokens, session.open), (30, 0), "judges are no agents, and begin no task");
    let trace = trace.unwrap();
    assert_eq!((trace.task.quality, trace.task.task_return), (Some(0.75), Some(0.5)));
    assert!(matches!(trace.timeline.last(), Some(Event::Judged(verdict)) if verdict.confidence == 0.5));
    assert!(trace.to_text().contains("quality 0.750, confidence 0.50; 3 tokens, 0.2500 of money, 7 ms"));
    assert!(session.to_text().contains("What judges said"), "{}", session.to_text());
}

#[test]
fn a_prior_that_no_longer_holds_is_noticed() {
    let primed = |action, value| {
        let (table, value) = (Table::Operations, Value::new(value).unwrap());
        (
            COORDINATOR,
            Record::Primed { table, signature: Signature(5), action: ActionId(action), value, weight: 9 },
        )
    };
    let outcomes =
        |n: u64| (0..n).flat_map(|task| [settled(task, 5, 0), settled(task, 5, 1), settled(task, 6, 0)]);
    let records = |n| [opened(), primed(0, 0.25), primed(1, 1.0)].into_iter().chain(outcomes(n));
    let begun = "begun with 2 priors of an earlier policy";
    assert_eq!(fold(None, records(7)).0.notices, [begun], "too few to tell");
    let [first, drift] = &fold(None, records(8)).0.notices[..] else { panic!() };
    assert_eq!(
        (first.as_str(), drift.contains("plan at ") && drift.contains("0.250")),
        (begun, true),
        "{drift}"
    );
}

#[test]
fn an_order_to_stop_is_shown_until_the_run_goes_on() {
    let halted = (DRIVER, Record::Halted { by: "ada".into(), reason: "too dear".into() });
    let records = || three_tasks().into_iter().chain([halted.clone()]);
    assert_eq!(fold(None, records()).0.halted.unwrap(), "ada: too dear");
    assert_eq!(fold(None, records().chain([received(3, 5, &[0])])).0.halted, None);
}

#[test]
fn a_long_run_is_told_in_few_words() {
    let tasks = 50_000;
    let task = |n: u64| {
        let usage = Usage { tokens: n % 7, failures: 0 };
        let (received, decided) =
            (received(n, n, &[0, 1]), decided(n, n, 1, n.is_multiple_of(2), &[0.5, 0.5]));
        let (performed, closed) = (performed(n, usage, Next::Ended), closed(n, 1.0, "evaluator-done"));
        [received, decided, performed, closed]
    };
    let (session, trace) = fold(Some(tasks - 1), std::iter::once(opened()).chain((0..tasks).flat_map(task)));
    assert_eq!((session.ended, session.open, session.totals.calls), (tasks, 0, tasks));
    assert_eq!(session.totals.tokens, (0..tasks).map(|n| n % 7).sum::<u64>());
    assert_eq!((session.tasks.len(), session.tasks[0].task), (TASKS_MAX, tasks - TASKS_MAX as u64));
    assert_eq!(session.situations.len(), SITUATIONS_MAX);
    assert!(session.situations[0].situation.contains("met later"), "{:?}", session.situations[0]);
    assert!(session.windows.len() <= 40);
    let timeline = trace.unwrap().timeline;
    assert!(
        matches!(timeline[..], [Event::HandedOver { .. }, Event::Decided(_), Event::Called(_)]),
        "{timeline:?}"
    );
    assert!(page::session(&session).unwrap().len() < 1 << 20);
}

#[test]
fn names_become_no_tags_of_the_page() {
    let mut cast = cast();
    cast.team = "<script>".into();
    let mut fold = Fold::new(cast, Some(0));
    for (agent, record) in three_tasks() {
        let record = match record {
            Record::Named { signature, .. } => Record::Named { signature, name: "<i>&\"".into() },
            other => other,
        };
        fold.take(&Entry { agent, record });
    }
    let (session, trace) = fold.finish();
    for html in [page::session(&session).unwrap(), page::task(&trace.unwrap())] {
        assert!(!html.contains("<script") && !html.contains("<i>"), "{html}");
        assert!(html.contains("&lt;i&gt;&amp;&quot;") && html.ends_with("</html>\n"));
    }
}

// ---- runs of programs ----

/// A folder with a team of programs: `up` makes the payload upper case for some tokens and money, `no` fails.
struct Shop(TempDir);

impl Shop {
    fn new() -> Self {
        let shop = Shop(tempfile::tempdir().unwrap());
        shop.program("up", "tr a-z A-Z <in >out; echo '{\"ok\":true,\"tokens\":5,\"money\":0.5}'");
        shop.program("no", "echo '{\"ok\":false,\"error\":\"it always does\"}'");
        let line = |(i, word): (usize, &str)| {
            fs::write(shop.path().join(word), format!("secret {word}")).unwrap();
            format!(
                "{{\"id\":\"{i}\",\"input\":\"{word}\",\"expect\":{{\"text\":\"SECRET {}\"}}}}\n",
                word.to_uppercase()
            )
        };
        let lines: String = ["one", "two", "three"].into_iter().enumerate().map(line).collect();
        ["train.jsonl", "test.jsonl"]
            .iter()
            .for_each(|name| fs::write(shop.path().join(name), &lines).unwrap());
        shop
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn stage(&self, sections: &str) -> Stage {
        let text = format!(
            "schema = \"relevo.team/v1\"\nname = \"shop\"\nstart = \"up\"\n{sections}\n[tasks]\ntrain = \"train.jsonl\"\n\
             test = \"test.jsonl\"\njudge = \"text\"\n\
             [[agents]]\nname = \"up\"\ncommand = [\"./up\"]\nobserves = [\"payload.kind\"]\nhandoffs = [\"finish\", \"no\"]\n\
             [[agents]]\nname = \"no\"\ncommand = [\"./no\"]\nobserves = [\"call.ended\"]\nhandoffs = [\"finish\", \"up\"]\n"
        );
        let team = TeamSpec::parse(&text).unwrap_or_else(|(line, what)| panic!("{line:?} {what}\n{text}"));
        Stage::new(team, self.path(), None).unwrap()
    }
}

async fn learn(stage: &Stage, out: &Path, episodes: u64, jobs: usize) -> (Vec<EpisodeEnd>, u64) {
    let session = Session::start(stage, out, RunConfig { seed: 1, episodes }).unwrap();
    let mut session = session.at_a_time(NonZeroUsize::new(jobs).unwrap());
    let mut ends = vec![];
    let flow = session.run(|end| {
        ends.push(end.clone());
        ControlFlow::Continue(())
    });
    assert!(flow.await.unwrap().is_continue());
    (ends, session.content_dropped())
}

fn told(cast: Cast, ledger: &Path, watched: Option<u64>) -> (SessionReport, Option<TaskReport>) {
    let (mut fold, mut entries) = (Fold::new(cast, watched), Entries::open(ledger).unwrap());
    while let Some(entry) = entries.next_entry().unwrap() {
        fold.take(&entry);
    }
    fold.finish()
}

#[tokio::test]
async fn a_run_told_from_its_ledger_is_the_run() {
    let shop = Shop::new();
    let stage = shop.stage("");
    let (ends, _) = learn(&stage, shop.path(), 20, 3).await;
    let (cast, ledger) = (Cast::of(&stage).unwrap(), shop.path().join(LEDGER_FILE));
    let (session, trace) = told(cast.clone(), &ledger, Some(7));
    let calls: Vec<AgentId> = ends.iter().flat_map(|end| end.path.iter().copied()).collect();
    let of = |agent| calls.iter().filter(|id| **id == AgentId(agent)).count() as u64;
    assert_eq!((session.ended, session.open, session.totals.calls), (20, 0, calls.len() as u64));
    assert_eq!(session.totals.handoffs, ends.iter().map(|end| u64::from(end.handoffs)).sum::<u64>());
    let [up, no] = &session.agents[..] else { panic!("{:?}", session.agents) };
    assert_eq!((up.calls, up.tokens, up.money), (of(0), 5 * of(0), 0.5 * of(0) as f64));
    assert_eq!((no.calls, no.failures.of("refused"), no.tokens), (of(1), of(1), 0));
    assert_eq!(
        (up.tasks, no.chosen),
        (20, of(1)),
        "every task begins with up, and no is called when it is chosen"
    );
    let mean = ends.iter().map(|end| end.episode_return).sum::<f64>() / 20.0;
    assert!((session.task_return.unwrap().mean - mean).abs() < 1e-12);
    let order: Vec<u64> = session.tasks.iter().map(|task| task.task).collect();
    assert_eq!(order, ends.iter().map(|end| end.episode).collect::<Vec<_>>());
    let end = ends.iter().find(|end| end.episode == 7).unwrap();
    let way: Vec<&str> = end.path.iter().map(|id| ["up", "no"][id.0 as usize]).collect();
    let task = trace.unwrap().task;
    assert_eq!((task.path.join(" "), task.task_return), (way.join(" "), Some(end.episode_return)));

    // A run that is being written ends within an entry.
    OpenOptions::new().append(true).open(&ledger).unwrap().write_all(&[0x82, 0x00]).unwrap();
    assert_eq!(told(cast, &ledger, None).0, session);
}

#[tokio::test]
async fn a_task_that_ends_before_its_first_call_has_none() {
    let shop = Shop::new();
    shop.program("up", "exit 1");
    let stage = shop.stage("[guards]\nbreaker = { failures = 2, cooldown = 100 }");
    learn(&stage, shop.path(), 10, 1).await;
    let ledger = shop.path().join(LEDGER_FILE);
    let (session, _) = told(Cast::of(&stage).unwrap(), &ledger, None);
    let (mut entries, mut called) = (Entries::open(&ledger).unwrap(), 0);
    while let Some(entry) = entries.next_entry().unwrap() {
        called += u64::from(matches!(entry.record, Record::Called { .. }));
    }
    let without = session.tasks.iter().filter(|task| task.calls == 0).count() as u64;
    assert!(without >= 5 && session.stops.of("guarded-breaker") >= without, "{}", session.stops);
    assert_eq!(session.totals.calls, called);
}

#[test]
fn a_long_ledger_is_read_in_parts_as_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LEDGER_FILE);
    let mut ledger = Ledger::create(&path).unwrap();
    for task in 0..4_000 {
        let records = if task == 0 {
            vec![opened()]
        } else {
            vec![received(task, task, &[0, 70]), closed(task, 0.5, "ended")]
        };
        records.into_iter().for_each(|(agent, record)| ledger.append(agent, record));
        let name = "x".repeat(task as usize % 700);
        ledger.append(DRIVER, Record::Named { signature: Signature(task), name });
        if task % 64 == 0 {
            ledger.seal().unwrap();
        }
    }
    ledger.flush().unwrap();
    let head = ledger.head();
    drop(ledger);
    let mut bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 1 << 20, "{} bytes are no long ledger", bytes.len());
    let (mut parts, mut whole) = (Entries::open(&path).unwrap(), Reader::new(&bytes));
    while let Some(entry) = parts.next_entry().unwrap() {
        assert_eq!(Some(entry), whole.next_entry().unwrap());
    }
    assert_eq!((whole.next_entry().unwrap(), parts.head()), (None, head));

    // A damaged one is refused at the same place as by a run that is taken up.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(&path, bytes).unwrap();
    let mut parts = Entries::open(&path).unwrap();
    let found = loop {
        match parts.next_entry() {
            Ok(entry) => assert!(entry.is_some(), "the damage was not found"),
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(found, Ledger::recover(&path).err().expect("it is damaged").to_string());
}

#[tokio::test]
async fn what_a_killed_run_was_at_is_open() {
    let shop = Shop::new();
    let stage = shop.stage("");
    learn(&stage, shop.path(), 3, 1).await;
    let ledger = shop.path().join(LEDGER_FILE);
    let bytes = fs::read(&ledger).unwrap();
    let mut reader = Reader::new(&bytes);
    let mut cut = 0;
    while let Some(entry) = reader.next_entry().unwrap() {
        if matches!(entry.record, Record::Closed { episode: 2, .. }) {
            break;
        }
        cut = reader.offset();
    }
    fs::write(&ledger, &bytes[..cut]).unwrap();
    let (session, trace) = told(Cast::of(&stage).unwrap(), &ledger, Some(2));
    assert_eq!((session.ended, session.open), (2, 1));
    let task = trace.unwrap().task;
    assert_eq!((task.state().as_str(), task.task_return, task.calls > 0), ("open", None, true));
    assert_eq!(session.totals.tokens, session.tasks.iter().map(|task| task.tokens).sum::<u64>());
}

// ---- decisions, explained ----

#[tokio::test]
async fn every_decision_is_replayed_to_the_bit() {
    let policies = [
        "policy = { rule = \"ucb\" }\npending = \"counted\"",
        "policy = { rule = \"posterior\", variance = 0.5, floor = 0.1 }",
        "credit = { rule = \"relay\", lambda = 0.5 }",
        "estimator = { kind = \"linear\", bits = 4 }",
    ];
    for learner in policies {
        let shop = Shop::new();
        let stage = shop.stage(&format!("[run]\nmax_handoffs = 4\n[learner]\n{learner}\n"));
        learn(&stage, shop.path(), 12, 3).await;
        let (cast, ledger) = (Cast::of(&stage).unwrap(), shop.path().join(LEDGER_FILE));
        for task in 0..12 {
            let decisions = told(cast.clone(), &ledger, Some(task)).1.unwrap().task.decisions;
            for place in 0..decisions {
                let id = DecisionId { task, place };
                let explained = explain(&ledger, &cast, id, Ok(&stage)).unwrap();
                assert_eq!(explained.replayed, Replayed::Same, "{learner}: {id}");
                let sum: f64 = explained.candidates.iter().map(|c| c.probability).sum();
                assert!((sum - 1.0).abs() < 1e-9 && explained.candidates.iter().all(|c| c.value.is_some()));
            }
            let beyond = explain(&ledger, &cast, DecisionId { task, place: decisions }, Ok(&stage));
            assert!(matches!(beyond, Err(ExplainError::NoDecision { .. })), "{beyond:?}");
        }
        let beyond = explain(&ledger, &cast, DecisionId { task: 12, place: 0 }, Ok(&stage));
        assert!(matches!(beyond, Err(ExplainError::NoTask { task: 12, begun: 12 })), "{beyond:?}");
    }
}

#[tokio::test]
async fn a_ledger_of_something_else_is_found_out() {
    let shop = Shop::new();
    let stage = shop.stage("");
    learn(&stage, shop.path(), 6, 1).await;
    let (cast, ledger) = (Cast::of(&stage).unwrap(), shop.path().join(LEDGER_FILE));
    let id = DecisionId { task: 5, place: 0 };
    let told = explain(&ledger, &cast, id, Ok(&stage)).unwrap();

    // Another team file: the same counts from the records alone, and no values.
    let other = shop.stage("[learner]\ninitial = 0.25\n");
    let alone = explain(&ledger, &cast, id, Ok(&other)).unwrap();
    assert!(matches!(&alone.replayed, Replayed::Not(why) if why.contains("changed")), "{:?}", alone.replayed);
    for (with, without) in told.candidates.iter().zip(&alone.candidates) {
        assert_eq!(
            (with.visits, with.mean, with.probability),
            (without.visits, without.mean, without.probability)
        );
        assert_eq!((without.value, without.pseudo), (None, None));
    }

    // Another probability, in a ledger that is sound otherwise.
    let (bytes, mut forged) = (fs::read(&ledger).unwrap(), vec![]);
    let mut reader = Reader::new(&bytes);
    while let Some(mut entry) = reader.next_entry().unwrap() {
        match &mut entry.record {
            Record::Sealed { .. } => continue,
            Record::Decided { handoff, probabilities, .. } if handoff.episode == EpisodeId(5) => {
                probabilities[0] += f64::EPSILON;
            }
            _ => {}
        }
        entry.write(&mut forged);
    }
    fs::write(&ledger, forged).unwrap();
    let forged = explain(&ledger, &cast, id, Ok(&stage)).unwrap();
    assert!(matches!(forged.replayed, Replayed::Differs(_)), "{:?}", forged.replayed);
}

// ---- content ----

/// All files under a folder, with what is in them.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut all = vec![];
    for task in fs::read_dir(folder).into_iter().flatten().flatten() {
        for file in fs::read_dir(task.path()).unwrap().flatten() {
            let name = format!("{}/{}", task.file_name().display(), file.file_name().display());
            all.push((name, fs::read_to_string(file.path()).unwrap()));
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn content_is_kept_only_on_request_and_only_redacted() {
    for (section, dropped) in [
        ("", 0),
        ("[trace]\ncontent = true", 0),
        ("[trace]\ncontent = true\nredact = [\"./redact\", \"#\"]", 0),
        ("[trace]\ncontent = true\nredact = [\"./fails\"]", 1),
        ("[trace]\ncontent = true\nredact = [\"./absent\"]", 1),
    ] {
        let shop = Shop::new();
        shop.program("redact", "sed 's/[sS][eE][cC][rR][eE][tT]/'\"$1\"/g");
        shop.program("fails", "cat; exit 1");
        let stage = shop.stage(section);
        let out = shop.path().join("out");
        fs::create_dir(&out).unwrap();
        let (ends, counted) = learn(&stage, &out, 4, 2).await;
        let calls: usize = ends.iter().map(|end| end.path.len()).sum();
        let content = files(&out.join("content"));
        assert_eq!(files(&out.join("outcomes")), [], "{section}: nothing stays where outcomes are kept");
        assert_eq!(counted, dropped * 2 * calls as u64, "{section}");
        let expected = if section.is_empty() || dropped > 0 { 0 } else { 2 * calls };
        assert_eq!(content.len(), expected, "{section}");
        for (name, text) in &content {
            let redacted = section.contains("redact");
            assert_eq!(
                text.to_lowercase().contains("secret "),
                !redacted && !text.contains("unchanged\":true"),
                "{section}: {name}: {text}"
            );
            assert!(!redacted || text.contains('#') || text.contains("unchanged\":true"), "{name}: {text}");
        }
        // The same learning whatever is kept of it.
        assert_eq!(stage.team().config_digest(b""), shop.stage("").team().config_digest(b""), "{section}");
    }
}

#[tokio::test]
async fn what_a_killed_run_had_not_released_is_released() {
    let shop = Shop::new();
    let stage = shop.stage("[trace]\ncontent = true");
    learn(&stage, shop.path(), 2, 1).await;
    let content = files(&shop.path().join("content"));
    // What had been released before is blank, and is not content.
    let blank = "{\"episode\":0,\"call\":0,\"given\":false,\"bytes\":3}\n\0\0\0";
    let left =
        "{\"episode\":1,\"call\":0,\"given\":false,\"bytes\":6}\nsecret{\"episode\":1,\"call\":1,\"giv";
    fs::create_dir_all(shop.path().join("outcomes")).unwrap();
    fs::write(shop.path().join("outcomes/0"), format!("{blank}{left}")).unwrap();
    fs::write(shop.path().join("outcomes/1"), blank).unwrap();
    let (mut session, _) = Session::resume(&stage, shop.path(), None, None).unwrap();
    assert!(session.run(|_| ControlFlow::Continue(())).await.unwrap().is_continue());
    assert_eq!(files(&shop.path().join("outcomes")), []);
    let of_first = |all: Vec<(String, String)>| {
        all.into_iter().filter(|(name, _)| name.starts_with("0/")).collect::<Vec<_>>()
    };
    let before = of_first(content);
    assert!(!before.is_empty());
    assert_eq!(of_first(files(&shop.path().join("content"))), before);
}

#[test]
fn mistakes_in_the_trace_section_are_answered() {
    for (section, says) in [
        ("redact = [\"./r\"]", "add content = true"),
        ("content = true\nredact = []", "names no program"),
        ("contents = true", "contents"),
    ] {
        let text = format!(
            "schema = \"relevo.team/v1\"\nname = \"t\"\nstart = \"a\"\n[trace]\n{section}\n[[agents]]\nname = \"a\"\n\
             command = [\"true\"]\nobserves = []\nhandoffs = [\"finish\"]\n[tasks]\ntrain = \"a\"\ntest = \"b\"\njudge = \"text\"\n"
        );
        let (_, message) = TeamSpec::parse(&text).unwrap_err();
        assert!(message.contains(says), "{section}: {message}");
    }
}
