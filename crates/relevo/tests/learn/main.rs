//! Learning from end to end: the same run gives the same bytes, however often it was broken off; every way of learning
//! finds the best choices of a small task; and returns are what a person computes by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

mod files;
mod judges;

use async_trait::async_trait;
use relevo::{
    agent::{Agent, Failure, OperationCall, Outcome},
    artifact::{Artifact, Scalar},
    episode::EpisodeError,
    evaluate::{Greedy, Walk, walk},
    judge::{Candidate, Judge, Score, Verdict},
    learn::{EpisodeEnd, LEDGER_FILE, LearnError, RunConfig, Session},
    ledger::LedgerError,
    reward::Usual,
    stage::Stage,
    tasks::{Simulator, Task, TaskError, TaskSource, facts},
    team::TeamSpec,
};
use relevo_core::{
    Rng,
    ids::AgentId,
    learner::Learner,
    policy_file::PolicyFile,
    protocol::Participant,
    record::{Reader, Record, Table},
    warm::Caps,
};
use tempfile::TempDir;

// ---- a small world ----

/// Tasks of kind `a` and `b`, raw at first. A smith makes a raw `a` good and spoils a raw `b`, a clerk the other way
/// round, a scout does nothing; an adept does what its operation says; a klutz fails. Good ones have quality 1.
struct Workshop;

const ROLES: [&str; 5] = ["scout", "smith", "clerk", "adept", "klutz"];

fn piece(kind: &str) -> Task {
    let text = |t: &str| Scalar::Text(t.to_owned());
    let facts = facts([("kind", text(kind)), ("state", text("raw"))]);
    Task { id: kind.to_owned(), artifact: Artifact { facts, payload: Arc::from([]) }, expected: None }
}

impl TaskSource for Workshop {
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError> {
        Ok(piece(["a", "b"][rng.below(2) as usize]))
    }

    fn evaluation(&self, index: u64) -> Result<Option<Task>, TaskError> {
        Ok((index < 2).then(|| piece(["a", "b"][index as usize])))
    }

    fn open(&self, input: &Path) -> Result<Task, TaskError> {
        Ok(piece(&input.display().to_string()))
    }

    fn quality(&self, _: &Task, artifact: &Artifact) -> Option<f64> {
        Some(if artifact.facts["state"] == Scalar::Text("good".into()) { 1.0 } else { 0.0 })
    }

    fn identity(&self) -> Vec<u8> {
        b"workshop".to_vec()
    }
}

impl Simulator for Workshop {
    fn agent(&self, role: &str) -> Option<Arc<dyn Agent>> {
        ROLES.iter().find(|r| **r == role).map(|role| Arc::new(Worker(role)) as Arc<dyn Agent>)
    }

    fn roles(&self) -> &'static [&'static str] {
        &ROLES
    }
}

struct Worker(&'static str);

#[async_trait]
impl Agent for Worker {
    async fn perform(&self, call: &OperationCall<'_>, mut artifact: Artifact) -> Outcome {
        let kind = artifact.facts["kind"].to_string();
        let tokens = if kind == "a" { 30 } else { 70 };
        let suits = match self.0 {
            "scout" => return Outcome { tokens: 10, ..Outcome::done(artifact) },
            "klutz" => return Outcome::failed(artifact, Failure::Refused("it always does".into())),
            "smith" => kind == "a",
            "clerk" => kind == "b",
            _ => call.operation == kind,
        };
        let state = artifact.facts.get_mut("state").unwrap();
        if *state == Scalar::Text("raw".into()) {
            *state = Scalar::Text(if suits { "good" } else { "spoilt" }.into());
        }
        Outcome { tokens, ..Outcome::done(artifact) }
    }
}

// ---- teams of it ----

/// scout, smith and clerk; each may hand to every other one.
const THREE: &str = r#"
[[agents]]
name = "scout"
simulate = "scout"
observes = ["kind", "state"]
handoffs = ["finish", "smith", "clerk"]

[[agents]]
name = "smith"
simulate = "smith"
observes = ["kind", "state", "call.ended"]
handoffs = ["finish", "scout", "clerk"]

[[agents]]
name = "clerk"
simulate = "clerk"
observes = ["kind", "state", "handoff.sender"]
handoffs = ["finish", "scout", "smith"]
"#;

/// An adept with an operation for each kind, between a scout and a klutz.
const ADEPT: &str = r#"
[[agents]]
name = "scout"
simulate = "scout"
observes = ["kind"]
handoffs = ["finish", "adept", "klutz"]

[[agents]]
name = "adept"
simulate = "adept"
operations = ["b", "a", "c"]
observes = ["kind", "state", "call.operation"]
handoffs = ["finish", "scout"]

[[agents]]
name = "klutz"
simulate = "klutz"
observes = ["kind", "state", "call.ended"]
handoffs = ["finish", "adept"]
"#;

/// Two calls and no handoff cost; the best of both kinds is scout, then the right one, then the end.
const REWARD: &str = "success = 1.0\ncall = -0.1";
const BEST: f64 = 0.8;

fn team(learner: &str, agents: &str) -> TeamSpec {
    team_with("max_handoffs = 6", REWARD, learner, agents)
}

fn team_with(run: &str, reward: &str, learner: &str, agents: &str) -> TeamSpec {
    let text = team_text(run, reward, learner, agents);
    TeamSpec::parse(&text).unwrap_or_else(|(line, what)| panic!("line {line:?}: {what}\n{text}"))
}

fn team_text(run: &str, reward: &str, learner: &str, agents: &str) -> String {
    format!(
        "schema = \"relevo.team/v1\"\nname = \"workshop\"\nstart = \"scout\"\n[simulate]\nenvironment = \"workshop@1\"\n\
         [run]\n{run}\n[reward]\n{reward}\n[learner]\n{learner}\n{agents}"
    )
}

fn stage(team: TeamSpec) -> Stage {
    Stage::new(team, Path::new("."), Some(Arc::new(Workshop))).unwrap()
}

// ---- running ----

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn ledger_of(out: &Path) -> PathBuf {
    out.join(LEDGER_FILE)
}

/// What is left of a run: the bytes of its ledger, the text of its policy, and how its episodes ended.
#[derive(PartialEq)]
struct Left {
    ledger: Vec<u8>,
    policy: String,
    ends: Vec<EpisodeEnd>,
}

async fn finish(session: &mut Session<'_>, out: &Path) -> Left {
    let mut ends = vec![];
    let flow = session.run(|end| {
        ends.push(end.clone());
        ControlFlow::Continue(())
    });
    assert!(flow.await.unwrap().is_continue());
    Left { ledger: fs::read(ledger_of(out)).unwrap(), policy: session.policy().to_text(), ends }
}

async fn learn(stage: &Stage, config: RunConfig) -> Left {
    let out = folder();
    let mut session = Session::start(stage, out.path(), config).unwrap();
    finish(&mut session, out.path()).await
}

/// Take up a run of which these bytes are left, and finish it.
async fn resume(stage: &Stage, ledger: &[u8]) -> Left {
    let out = folder();
    fs::write(ledger_of(out.path()), ledger).unwrap();
    let (mut session, dropped) = Session::resume(stage, out.path(), None, None).unwrap();
    let sound = entries(ledger).last().unwrap().0;
    assert_eq!(dropped, ledger.len() - sound, "only a record that was being written is dropped");
    finish(&mut session, out.path()).await
}

/// Every whole entry, with the offset behind it.
fn entries(ledger: &[u8]) -> Vec<(usize, Record)> {
    let mut reader = Reader::new(ledger);
    let mut entries = vec![];
    while let Ok(Some(entry)) = reader.next_entry() {
        entries.push((reader.offset(), entry.record));
    }
    entries
}

const fn config(seed: u64, episodes: u64) -> RunConfig {
    RunConfig { seed, episodes }
}

/// Participants that know what a policy file says.
fn restored(stage: &Stage, policy: &PolicyFile) -> Vec<Participant> {
    let agents = policy.agents.iter().enumerate().map(|(i, agent)| {
        let spec = stage.team().participant(AgentId(i as u32), 1).unwrap();
        let mut participant = Participant::new(spec, &mut Rng::stream(99, "other")).unwrap();
        agent.restore(participant.learner_mut()).unwrap();
        participant
    });
    agents.collect()
}

async fn greedy_walks(stage: &Stage, participants: &[Participant]) -> Vec<Walk> {
    let learners: Vec<&Learner> = participants.iter().map(|p| p.learner()).collect();
    let mut walks = vec![];
    for kind in 0..2 {
        let task = stage.tasks().evaluation(kind).unwrap().unwrap();
        let mut greedy = Greedy { learners: learners.clone() };
        walks.push(walk(stage, &mut stage.guard(), task, kind, Usual::default(), &mut greedy).await.unwrap());
    }
    walks
}

/// Who chose what, seen from outside.
fn told(walk: &Walk) -> Vec<(AgentId, String, Option<u32>, u32)> {
    walk.turns.iter().map(|t| (t.agent, t.situation.clone(), t.action.map(|a| a.0), t.operation.0)).collect()
}

// ---- the same run gives the same bytes ----

const PLAIN: &str = "decides = \"after\"";

#[tokio::test]
async fn a_seed_is_a_run() {
    let stage = stage(team(PLAIN, THREE));
    let run = learn(&stage, config(7, 200)).await;
    assert!(run == learn(&stage, config(7, 200)).await, "the same seed gives other bytes");
    let other = learn(&stage, config(8, 200)).await;
    assert!(run.ledger != other.ledger && run.policy != other.policy, "another seed gives the same bytes");
    assert_eq!(run.ends.len(), 200);
    assert_eq!(PolicyFile::from_text(&run.policy).unwrap().to_text(), run.policy);
}

/// Every entry boundary of the first episodes, a place within each of those entries, and places all over the rest.
#[tokio::test]
async fn a_run_cut_anywhere_is_taken_up() {
    let stage = stage(team(PLAIN, THREE));
    let run = learn(&stage, config(3, 30)).await;
    let entries = entries(&run.ledger);
    let opened = entries[0].0;
    let fourth = entries.iter().filter(|(_, r)| matches!(r, Record::Closed { .. })).nth(3).unwrap().0;
    let mut cuts: Vec<usize> = entries.iter().map(|(end, _)| *end).filter(|end| *end <= fourth).collect();
    cuts.extend(cuts.clone().windows(2).map(|pair| (pair[0] + pair[1]) / 2));
    cuts.extend((0..40).map(|i| opened + (run.ledger.len() - opened) * i / 40));
    cuts.extend((1..=40).map(|i| run.ledger.len() - i));
    assert!(cuts.len() >= 100, "{} cuts", cuts.len());
    for cut in cuts {
        let resumed = resume(&stage, &run.ledger[..cut]).await;
        assert!(resumed.ledger == run.ledger, "cut at byte {cut} of {}: other ledger", run.ledger.len());
        assert!(resumed.policy == run.policy, "cut at byte {cut}: other policy");
    }
}

/// Several tasks at a time: what is learned is what the ledger says, wherever it is cut.
#[tokio::test]
async fn tasks_at_a_time_are_taken_up_where_they_were() {
    let stage = stage(team(PLAIN, THREE));
    let out = folder();
    let mut session =
        Session::start(&stage, out.path(), config(3, 40)).unwrap().at_a_time(5.try_into().unwrap());
    let run = finish(&mut session, out.path()).await;
    drop(session);
    assert_eq!(run.ends.len(), 40);
    for i in 1..=60 {
        let cut = 200 + (run.ledger.len() - 200) * i / 60;
        let out = folder();
        fs::write(ledger_of(out.path()), &run.ledger[..cut]).unwrap();
        let (session, _) = Session::resume(&stage, out.path(), None, None).unwrap();
        let begun = session.open() as u64 + session.episodes_done();
        assert!(session.open() <= 5 && begun <= 40, "cut at byte {cut}: {begun} begun");
        let mut session = session.at_a_time(5.try_into().unwrap());
        let resumed = finish(&mut session, out.path()).await;
        assert!(resumed.ledger.starts_with(&run.ledger[..entries(&run.ledger[..cut]).last().unwrap().0]));
        drop(session);
        let (whole, _) = Session::resume(&stage, out.path(), None, None).unwrap();
        assert_eq!(whole.policy().to_text(), resumed.policy, "cut at byte {cut}: not the fold of its ledger");
    }
}

#[tokio::test]
async fn a_run_broken_off_after_any_episode_is_taken_up() {
    let stage = stage(team(PLAIN, THREE));
    let run = learn(&stage, config(3, 12)).await;
    let out = folder();
    let watch = |_: &EpisodeEnd| ControlFlow::Break(());
    let mut session = Session::start(&stage, out.path(), config(3, 12)).unwrap();
    assert!(session.run(watch).await.unwrap().is_break());
    drop(session);
    for done in 1..12 {
        let (mut session, dropped) = Session::resume(&stage, out.path(), Some(3), Some(12)).unwrap();
        assert_eq!((session.episodes_done(), session.returns().len(), dropped), (done, done as usize, 0));
        assert!(session.run(watch).await.unwrap().is_break());
    }
    let (mut session, _) = Session::resume(&stage, out.path(), None, None).unwrap();
    assert_eq!(session.episodes_done(), 12);
    let left = finish(&mut session, out.path()).await;
    assert!(left.ledger == run.ledger && left.policy == run.policy && left.ends.is_empty());
}

/// What happens to a ledger that is to be taken up; it must not be touched.
fn refused(stage: &Stage, ledger: &[u8], seed: Option<u64>, episodes: Option<u64>) -> LearnError {
    let out = folder();
    let path = ledger_of(out.path());
    fs::write(&path, ledger).unwrap();
    let Err(error) = Session::resume(stage, out.path(), seed, episodes) else {
        panic!("it was taken up");
    };
    assert!(fs::read(&path).unwrap() == ledger, "the refused ledger was changed: {error}");
    assert!(error.to_string().contains(&path.display().to_string()), "the ledger is not named: {error}");
    error
}

#[tokio::test]
async fn an_altered_ledger_is_refused() {
    let stage = stage(team(PLAIN, THREE));
    let run = learn(&stage, config(5, 40)).await;
    let last = entries(&run.ledger).into_iter().rev().nth(1).unwrap().0;
    for (at, change) in (0..last).step_by(37).zip([0x01, 0x80, 0xff, 0x10].into_iter().cycle()) {
        let mut ledger = run.ledger.clone();
        ledger[at] ^= change;
        let out = folder();
        fs::write(ledger_of(out.path()), &ledger).unwrap();
        match Session::resume(&stage, out.path(), None, None) {
            Err(LearnError::Ledger(LedgerError::Damaged { good, .. })) => assert!(good <= at),
            Err(LearnError::Replay { .. } | LearnError::OtherRun { .. }) => {}
            Err(other) => panic!("byte {at}: {other}"),
            Ok((session, dropped)) => {
                panic!(
                    "byte {at} of {last} was changed, and {dropped} bytes dropped after {} episodes",
                    session.episodes_done()
                )
            }
        }
        assert!(fs::read(ledger_of(out.path())).unwrap() == ledger, "byte {at}: the file was changed");
    }
    let middle = entries(&run.ledger)[40].0;
    for garbage in [&b"garbage"[..], b"\x00\x00\x00\x00\x00\x00\x00\x00", b"\xff", &[0x9f; 2_000_000]] {
        let mut ledger = run.ledger[..middle].to_vec();
        ledger.extend(garbage);
        ledger.extend(&run.ledger[middle..]);
        let error = refused(&stage, &ledger, None, None);
        assert!(matches!(error, LearnError::Ledger(LedgerError::Damaged { .. })), "{error}");
        assert!(error.to_string().contains("truncate -s"), "no way out: {error}");
    }
}

/// The way out that a damaged ledger is answered with.
#[tokio::test]
async fn a_damaged_ledger_can_be_cut_and_taken_up() {
    let stage = stage(team(PLAIN, THREE));
    let run = learn(&stage, config(5, 40)).await;
    let mut ledger = run.ledger.clone();
    ledger[run.ledger.len() / 2] ^= 0x55;
    ledger[run.ledger.len() / 2 + 1] ^= 0x55;
    let error = refused(&stage, &ledger, None, None);
    let LearnError::Ledger(LedgerError::Damaged { good, .. }) = error else { panic!("{error}") };
    assert!(good < run.ledger.len() / 2);
    // What is not sealed may have been altered without being noticed before: the sound part must be the original.
    assert!(ledger[..good] == run.ledger[..good]);
    let left = resume(&stage, &ledger[..good]).await;
    assert!(left.ledger == run.ledger && left.policy == run.policy);
}

#[tokio::test]
async fn another_run_is_not_taken_up() {
    let stage_of = |learner: &str| stage(team(learner, THREE));
    let stage = stage_of(PLAIN);
    let run = learn(&stage, config(5, 10)).await;
    let torn = &run.ledger[..run.ledger.len() - 50];
    for ledger in [&run.ledger[..], torn] {
        for (seed, episodes) in [(Some(6), None), (None, Some(11)), (Some(6), Some(11))] {
            let message = refused(&stage, ledger, seed, episodes).to_string();
            assert!(message.contains("--seed 5 --episodes 10") && message.contains("--out"), "{message}");
        }
        let changed = stage_of("decides = \"after\"\ninitial = 0.1");
        let message = refused(&changed, ledger, None, None).to_string();
        assert!(message.contains("changed since this run began") && message.contains("--out"), "{message}");
    }
    // How a run is measured, and what is said about it, may change.
    let mut measured = stage.team().clone();
    (measured.description, measured.run.evaluation_tasks) = ("other words".into(), 7);
    let measured = Stage::new(measured, Path::new("."), Some(Arc::new(Workshop))).unwrap();
    assert!(resume(&measured, torn).await.ledger == run.ledger);

    for empty in [&run.ledger[..0], &run.ledger[..20]] {
        let message = refused(&stage, empty, None, None).to_string();
        assert!(message.contains("nothing was learned") && message.contains("remove it"), "{message}");
    }
    let out = folder();
    let message = Session::resume(&stage, out.path(), None, None).map(drop).unwrap_err().to_string();
    assert!(message.contains(LEDGER_FILE) && message.contains("cannot be opened"), "{message}");
}

#[tokio::test]
async fn a_ledger_has_one_writer() {
    let stage = stage(team(PLAIN, THREE));
    let out = folder();
    let session = Session::start(&stage, out.path(), config(1, 5)).unwrap();
    let error = Session::resume(&stage, out.path(), None, None).map(drop).unwrap_err();
    assert!(matches!(error, LearnError::Ledger(LedgerError::Locked { .. })), "{error}");
    let error = Session::start(&stage, out.path(), config(1, 5)).map(drop).unwrap_err();
    assert!(matches!(error, LearnError::Ledger(LedgerError::Io { .. })), "{error}");
    drop(session);
    Session::resume(&stage, out.path(), None, None).unwrap();
}

// ---- every way of learning ----

const STEADY: &str = "policy = { rule = \"epsilon-greedy\", epsilon = 0.3 }";
const SMALL_MLP: &str = "estimator = { kind = \"mlp\", inputs = 16, hidden = [12], rate = 0.01, batch = 4 }";

/// Learns the best choices for both kinds, survives its policy file, and survives being cut off.
async fn learns(name: &str, team: TeamSpec, episodes: u64) {
    let stage = stage(team);
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(11, episodes)).unwrap();
    let run = finish(&mut session, out.path()).await;
    let walks = greedy_walks(&stage, session.participants()).await;
    for walk in &walks {
        let told = told(walk);
        assert!((walk.walk_return - BEST).abs() < 1e-9, "{name}: {} for {told:?}", walk.walk_return);
    }
    let policy = PolicyFile::from_text(&run.policy).unwrap_or_else(|e| panic!("{name}: {e}"));
    let again = greedy_walks(&stage, &restored(&stage, &policy)).await;
    assert_eq!(
        walks.iter().map(told).collect::<Vec<_>>(),
        again.iter().map(told).collect::<Vec<_>>(),
        "{name}"
    );
    for (before, after) in session.participants().iter().zip(restored(&stage, &policy)) {
        for turn in walks.iter().flat_map(|w| &w.turns).filter(|t| t.agent == before.spec().id) {
            let values = |p: &Participant| p.learner().values(Table::Successors, &turn.observation);
            assert_eq!(values(before), values(&after), "{name}: {}", turn.situation);
        }
    }
    drop(session);
    for cut in [run.ledger.len() / 5, run.ledger.len() * 2 / 3, run.ledger.len() - 1] {
        let left = resume(&stage, &run.ledger[..cut]).await;
        assert!(left.ledger == run.ledger && left.policy == run.policy, "{name}: cut at byte {cut}");
    }
}

#[tokio::test]
async fn every_credit_learns() {
    let credits = [
        "credit = { rule = \"value-passing\" }",
        "credit = { rule = \"relay\", lambda = 0.0 }",
        "credit = { rule = \"relay\", lambda = 0.5 }",
        "credit = { rule = \"relay\", lambda = 1.0 }",
        // What exploration costs later on is in every return: little of it, so that the best choice stays the best.
        "credit = { rule = \"trajectory\" }\nstep = { rule = \"mean\" }\ninitial = 1.0",
    ];
    for credit in credits {
        for decides in ["after", "before"] {
            let learner = format!("decides = \"{decides}\"\n{credit}");
            learns(&learner, team(&learner, THREE), 1500).await;
        }
        learns(&format!("adept, {credit}"), team(credit, ADEPT), 1500).await;
    }
}

#[tokio::test]
async fn every_policy_learns() {
    let policies = [
        STEADY,
        "policy = { rule = \"epsilon-greedy\", epsilon = { from = 1.0, to = 0.05, over = 0.5 }, ties = \"random\" }",
        "policy = { rule = \"epsilon-greedy\", epsilon = { floor = 0.1, scale = 50.0, exponent = 0.5 } }",
        "policy = { rule = \"ucb\" }",
        "policy = { rule = \"ucb\", exploration = 2.0, exploration_min = 0.2, half_life = 100.0, floor = 0.05 }",
        "policy = { rule = \"posterior\", variance = 0.1 }",
        "policy = { rule = \"ucb\", warm_up = 5 }\npending = \"counted\"\nestimator = { kind = \"pooled\" }",
    ];
    for policy in policies {
        learns(policy, team(policy, THREE), 1000).await;
        learns(&format!("adept, {policy}"), team(policy, ADEPT), 1000).await;
    }
}

#[tokio::test]
async fn every_step_rule_learns() {
    let rules = [
        "{ rule = \"resc\", horizon = 4 }",
        "{ rule = \"poly\", exponent = 0.6 }",
        "{ rule = \"poly-average\", exponent = 0.6 }",
        "{ rule = \"constant\", step = 0.05 }",
    ];
    for rule in rules {
        let learner = format!("step = {rule}\n{STEADY}");
        learns(&learner, team(&learner, THREE), 1000).await;
        learns(&format!("adept, {rule}"), team(&learner, ADEPT), 1000).await;
    }
}

#[tokio::test]
async fn every_estimator_learns() {
    for estimator in ["estimator = { kind = \"linear\", bits = 8 }", SMALL_MLP] {
        for decides in ["after", "before"] {
            let learner = format!("decides = \"{decides}\"\n{estimator}\n{STEADY}");
            learns(&learner, team(&learner, THREE), 2500).await;
        }
        let learner = format!("{estimator}\n{STEADY}");
        learns(&format!("adept, {learner}"), team(&learner, ADEPT), 2500).await;
    }
}

#[tokio::test]
async fn every_extension_learns() {
    let extensions = [
        "{ local_model = true }",
        "{ refresh = 0.01 }",
        "{ standard_error = 0.5 }",
        "{ local_model = true, refresh = 0.05 }",
        "{ refresh = 0.05, standard_error = 0.2 }",
    ];
    for extension in extensions {
        let learner = format!("decides = \"before\"\nextensions = {extension}\n{STEADY}");
        learns(extension, team(&learner, THREE), 600).await;
        learns(&format!("adept, {extension}"), team(&learner, ADEPT), 1000).await;
    }
}

/// What an adept has done is among what it sees when it chooses its successor.
#[tokio::test]
async fn an_adept_sees_its_own_operation() {
    let stage = stage(team(STEADY, ADEPT));
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(2, 800)).unwrap();
    finish(&mut session, out.path()).await;
    let walks = greedy_walks(&stage, session.participants()).await;
    for (walk, (kind, operation)) in walks.iter().zip([("a", 1), ("b", 0)]) {
        let turn = &walk.turns[1];
        assert_eq!(turn.situation, format!("kind={kind} state=good call.operation={kind}"));
        assert_eq!(turn.operation.0, operation);
    }
    let names: Vec<&str> = session.names().values().map(String::as_str).collect();
    assert!(names.contains(&"kind=a state=raw call.operation=-"), "{names:?}");
    let policy = session.policy();
    assert_eq!(policy.agents[1].operations, ["b", "a", "c"]);
    assert!(policy.agents[0].operations.is_empty());
}

#[test]
fn an_impossible_estimator_is_refused_before_anything_is_written() {
    for estimator in
        ["{ kind = \"linear\", bits = 60 }", "{ kind = \"mlp\", inputs = 0, hidden = [4], rate = 0.1 }"]
    {
        let text = team_text("", REWARD, &format!("estimator = {estimator}"), THREE);
        let Ok(team) = TeamSpec::parse(&text) else { continue };
        let (stage, out) = (stage(team), folder());
        let error = Session::start(&stage, out.path(), config(1, 5)).map(drop).unwrap_err();
        assert!(matches!(error, LearnError::Episode(EpisodeError::Spec { .. })), "{estimator}: {error}");
        assert!(!ledger_of(out.path()).exists());
    }
}

// ---- returns ----

/// scout, then smith, then clerk, then the end: nothing to choose.
const CHAIN: &str = r#"
[[agents]]
name = "scout"
simulate = "scout"
observes = ["kind", "state"]
handoffs = ["smith"]

[[agents]]
name = "smith"
simulate = "smith"
observes = ["kind", "state"]
handoffs = ["clerk"]

[[agents]]
name = "clerk"
simulate = "clerk"
observes = ["kind", "state"]
handoffs = ["finish"]
"#;

const PRICES: &str = "success = 1.0\nhandoff = -0.05\ncall = -0.1";
const G: f64 = 0.9;

/// Learns by whole steps; gives the last episode of kind `a`, each agent's value of its first choice there, and the walk
/// of what was learned.
async fn settle(run: &str, learner: &str, agents: &str) -> (EpisodeEnd, Vec<Option<f64>>, Walk) {
    let learner = format!("discount = {G}\nstep = {{ rule = \"constant\", step = 1.0 }}\n{learner}");
    let stage = stage(team_with(run, PRICES, &learner, agents));
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(1, 60)).unwrap();
    let ends = finish(&mut session, out.path()).await.ends;
    let walks = greedy_walks(&stage, session.participants()).await;
    let kinds = ends.iter().map(|e| e.episode).zip(tasks_of(&session, &stage));
    let last = kinds.rev().find(|(_, kind)| kind == "a").unwrap().0;
    // Values of what was seen on the way, where the agent had anything to say.
    let values = session.participants().iter().map(|p| {
        let turn = walks[0].turns.iter().find(|t| t.agent == p.spec().id)?;
        let seen = p.learner().graph(Table::Successors)?.edges(turn.observation.signature)?;
        seen.first().map(|edge| edge.value)
    });
    let values = values.collect();
    (ends[last as usize].clone(), values, walks.into_iter().next().unwrap())
}

/// The kind of every episode's task, drawn as the session draws them.
fn tasks_of(session: &Session<'_>, stage: &Stage) -> Vec<String> {
    let draws = Rng::stream(session.config().seed, "tasks");
    let task = |e| stage.tasks().training(&mut draws.fork([e, 0, 0])).unwrap();
    (0..session.episodes_done()).map(|e| task(e).id).collect()
}

fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-12, "{what}: {found}, expected {expected}");
}

/// A call is a primitive step, and so is a handover that is chosen after it: rewards at gamma^0, ^1, ^2, ...
#[tokio::test]
async fn a_discounted_chain_decided_after() {
    let expected = -0.1 - 0.05 * G - 0.1 * G.powi(2) - 0.05 * G.powi(3) - 0.1 * G.powi(4) + G.powi(5);
    for credit in ["{ rule = \"value-passing\" }", "{ rule = \"relay\", lambda = 0.5 }"] {
        let (end, values, walk) = settle("", &format!("credit = {credit}"), CHAIN).await;
        near(end.episode_return, expected, "episode");
        near(walk.walk_return, expected, "walk");
        assert_eq!((end.handoffs, end.stop.word(), end.path.len()), (2, "finished", 3));
        assert!(end.greedy);
        // The choice comes after the first call: its value is the return from there on.
        near(values[0].unwrap(), (expected + 0.1) / G, credit);
        near(values[2].unwrap(), 1.0, credit);
    }
}

/// Chosen before the call, the handover belongs to the same primitive step.
#[tokio::test]
async fn a_discounted_chain_decided_before() {
    let expected = (-0.1 - 0.05) + (-0.1 - 0.05) * G + (-0.1 + 1.0) * G.powi(2);
    for credit in ["{ rule = \"value-passing\" }", "{ rule = \"relay\", lambda = 0.5 }"] {
        let (end, values, walk) =
            settle("", &format!("decides = \"before\"\ncredit = {credit}"), CHAIN).await;
        near(values[0].unwrap(), expected, credit);
        near(end.episode_return, expected, "episode");
        near(walk.walk_return, expected, "walk");
        near(values[2].unwrap(), 0.9, credit);
    }
}

#[tokio::test]
async fn under_trajectory_credit_every_step_is_worth_the_whole_return() {
    for decides in ["after", "before"] {
        let learner = format!("decides = \"{decides}\"\ncredit = {{ rule = \"trajectory\" }}");
        let (end, values, _) = settle("", &learner, CHAIN).await;
        for value in values {
            near(value.unwrap(), end.episode_return, decides);
        }
    }
}

#[tokio::test]
async fn a_deadline_ends_with_nothing() {
    let circle = CHAIN.replace("\"finish\"", "\"scout\"");
    // Three calls and three handovers, of which the last is not delivered.
    let after = -0.1 * (1.0 + G.powi(2) + G.powi(4)) - 0.05 * (G + G.powi(3) + G.powi(5));
    let before = -0.15 * (1.0 + G + G.powi(2));
    for (decides, expected, last) in [("after", after, -0.05), ("before", before, -0.15)] {
        let learner = format!("decides = \"{decides}\"");
        let (end, values, walk) = settle("max_handoffs = 2", &learner, &circle).await;
        assert_eq!((end.stop.word(), end.handoffs, end.path.len()), ("max-handoffs", 2, 3));
        near(end.episode_return, expected, decides);
        near(walk.walk_return, expected, decides);
        near(values[2].unwrap(), last, decides);
        assert_eq!((walk.stop.word(), walk.quality, walk.spent.calls), ("max-handoffs", Some(0.0), 3));
        // A deadline is an end for all credits alike.
        let learner = format!("{learner}\ncredit = {{ rule = \"trajectory\" }}");
        let (_, values, _) = settle("max_handoffs = 2", &learner, &circle).await;
        near(values[0].unwrap(), expected, "trajectory");
    }
}

#[tokio::test]
async fn a_dead_end_is_worth_what_it_cost() {
    let stuck = "handoffs = [{ to = \"clerk\", when = { state = \"raw\" } }]\n";
    let dead = CHAIN.replace("handoffs = [\"clerk\"]\n", stuck);
    // Decided after, the smith works and then has nobody; before, it is still raw, and the clerk gets it.
    let (end, values, walk) = settle("", "", &dead).await;
    assert_eq!((end.stop.word(), end.handoffs, end.path.len()), ("no-successor", 1, 2));
    let expected = -0.1 - 0.05 * G - 0.1 * G.powi(2);
    near(end.episode_return, expected, "after");
    near(walk.walk_return, expected, "after");
    near(values[0].unwrap(), -0.05 - 0.1 * G, "after");
    assert_eq!(
        (walk.stop.word(), walk.spent.calls, walk.turns.last().unwrap().action),
        ("no-successor", 2, None)
    );

    let (end, values, _) = settle("", "credit = { rule = \"trajectory\" }", &dead).await;
    near(values[0].unwrap(), end.episode_return, "trajectory");

    let never = dead.replace("\"raw\"", "\"never\"");
    for credit in ["value-passing", "trajectory"] {
        let learner = format!("decides = \"before\"\ncredit = {{ rule = \"{credit}\" }}");
        let (end, values, walk) = settle("", &learner, &never).await;
        assert_eq!((end.stop.word(), end.handoffs, end.path.len()), ("no-successor", 1, 1));
        near(end.episode_return, -0.15, credit);
        near(walk.walk_return, -0.15, credit);
        near(values[0].unwrap(), -0.15, credit);
        assert_eq!((walk.stop.word(), walk.spent.calls), ("no-successor", 1));
    }
    let nobody =
        CHAIN.replace("handoffs = [\"smith\"]", "handoffs = [{ to = \"smith\", when = { state = \"x\" } }]");
    for (decides, expected, calls) in [("after", -0.1, 1), ("before", 0.0, 0)] {
        let (end, _, walk) = settle("", &format!("decides = \"{decides}\""), &nobody).await;
        assert_eq!((end.stop.word(), end.handoffs, walk.spent.calls), ("no-successor", 0, calls));
        near(end.episode_return, expected, decides);
        near(walk.walk_return, expected, decides);
    }
}

#[tokio::test]
async fn an_adept_in_a_discounted_chain() {
    let agents = CHAIN
        .replace("simulate = \"smith\"", "simulate = \"adept\"\noperations = [\"a\", \"b\"]")
        .replace("[\"clerk\"]", "[\"finish\"]");
    let expected = -0.1 - 0.05 * G - 0.1 * G.powi(2) + G.powi(3);
    for credit in ["value-passing", "trajectory"] {
        let learner = format!(
            "credit = {{ rule = \"{credit}\" }}\npolicy = {{ rule = \"epsilon-greedy\", epsilon = 0.0 }}\ninitial = 0.1"
        );
        let agents = agents.replace("operations = [\"a\", \"b\"]", "operations = [\"a\", \"a2\"]");
        let (end, values, walk) = settle("", &learner, &agents).await;
        near(end.episode_return, expected, credit);
        near(walk.walk_return, expected, credit);
        let first = if credit == "trajectory" { expected } else { (expected + 0.1) / G };
        near(values[0].unwrap(), first, credit);
    }
}

/// What a task has cost counts by what one usually costs: the median of those that had ended when it began. A run that is
/// cut goes on with the same median.
#[tokio::test]
async fn costs_are_measured_by_what_is_usual() {
    let reward = "success = 1.0\ntokens = -0.3\nscale = \"median\"";
    let stage = stage(team_with("", reward, PLAIN, CHAIN));
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(6, 30)).unwrap();
    let run = finish(&mut session, out.path()).await;
    let mut before: Vec<u64> = vec![];
    for end in &run.ends {
        before.sort();
        let usual = before.get(before.len().saturating_sub(1) / 2).map_or(end.spent.tokens, |usual| *usual);
        let cost = 0.3 * end.spent.tokens as f64 / usual as f64;
        near(end.episode_return, end.quality.unwrap() - cost, &format!("episode {}", end.episode));
        before.push(end.spent.tokens);
    }
    let costs: BTreeSet<u64> = before.into_iter().collect();
    assert_eq!(costs.into_iter().collect::<Vec<_>>(), [70, 150], "both kinds came up");
    let usual = session.usual().tokens.unwrap();
    let task = stage.tasks().evaluation(1).unwrap().unwrap();
    let learners = session.participants().iter().map(|p| p.learner()).collect();
    let greedy = &mut Greedy { learners };
    let walk = walk(&stage, &mut stage.guard(), task, 0, session.usual(), greedy).await.unwrap();
    near(walk.walk_return, walk.quality.unwrap() - 0.3 * 150.0 / usual, "measured");
    drop(session);
    for i in 1..=20 {
        let cut = 200 + (run.ledger.len() - 200) * i / 20;
        assert!(resume(&stage, &run.ledger[..cut]).await.ledger == run.ledger, "cut at byte {cut}");
    }
}

// ---- warm starts ----

/// What one run learned gives another its priors; they are on record, and resumed with it.
#[tokio::test]
async fn an_earlier_policy_gives_priors() {
    let stage = stage(team("policy = { rule = \"ucb\", floor = 0.05 }", THREE));
    let earlier = PolicyFile::from_text(&learn(&stage, config(1, 300)).await.policy).unwrap();
    let out = folder();
    let mut session = Session::start(&stage, out.path(), config(2, 10)).unwrap();
    let warm = session.warm_start(&earlier, Caps::default()).unwrap();
    assert!(warm.same > 0 && (warm.versions, warm.dropped) == (0, 0), "{warm:?}");
    let left = finish(&mut session, out.path()).await;
    drop(session);
    let cold = learn(&stage, config(2, 10)).await;
    let mean = |left: &Left| left.ends.iter().map(|end| end.episode_return).sum::<f64>() / 10.0;
    assert!(mean(&left) > mean(&cold), "warm {} cold {}", mean(&left), mean(&cold));
    let primed = |record: &&Record| matches!(record, Record::Primed { .. });
    let entries = entries(&left.ledger);
    assert_eq!(entries.iter().map(|(_, record)| record).filter(primed).count(), warm.same);
    let ends = entries.iter().skip_while(|(_, record)| !primed(&record));
    let mut ends =
        ends.skip_while(|(_, record)| !matches!(record, Record::Sealed { .. })).map(|(end, _)| *end);
    let sealed = ends.next().unwrap();
    let within = entries.iter().map(|(end, _)| *end).rfind(|end| *end < sealed).unwrap();
    refused(&stage, &left.ledger[..within], None, None);
    for cut in ends {
        let out = folder();
        fs::write(ledger_of(out.path()), &left.ledger[..cut]).unwrap();
        let (mut session, _) = Session::resume(&stage, out.path(), None, None).unwrap();
        assert!(finish(&mut session, out.path()).await.policy == left.policy, "cut at byte {cut}");
    }
}
