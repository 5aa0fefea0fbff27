//! Learning from end to end: the same run gives the same bytes, however often it was broken off; every way of learning
//! finds the best choices of a small task; and returns are what a person computes by hand.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use relevo::{
    agent::{Agent, Failure, OperationCall, Outcome},
    artifact::{Artifact, Scalar},
    evaluate::{Greedy, Walk, walk},
    judge::{Candidate, Judge, Score, Verdict},
    learn::{EpisodeEnd, LEDGER_FILE, LearnError, RunConfig, Session},
    ledger::LedgerError,
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
        let suits = match self.0 {
            "scout" => return Outcome::done(artifact),
            "klutz" => return Outcome::failed(artifact, Failure::Refused("it always does".into())),
            "smith" => kind == "a",
            "clerk" => kind == "b",
            _ => call.operation == kind,
        };
        let state = artifact.facts.get_mut("state").unwrap();
        if *state == Scalar::Text("raw".into()) {
            *state = Scalar::Text(if suits { "good" } else { "spoilt" }.into());
        }
        Outcome::done(artifact)
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
        walks.push(walk(stage, &mut stage.guard(), task, kind, &mut greedy).await.unwrap());
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
        assert!(matches!(error, LearnError::Spec { .. }), "{estimator}: {error}");
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
        assert_eq!((walk.stop.word(), walk.quality, walk.calls), ("max-handoffs", Some(0.0), 3));
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
    assert_eq!((walk.stop.word(), walk.calls, walk.turns.last().unwrap().action), ("no-successor", 2, None));

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
        assert_eq!((walk.stop.word(), walk.calls), ("no-successor", 1));
    }
    let nobody =
        CHAIN.replace("handoffs = [\"smith\"]", "handoffs = [{ to = \"smith\", when = { state = \"x\" } }]");
    for (decides, expected, calls) in [("after", -0.1, 1), ("before", 0.0, 0)] {
        let (end, _, walk) = settle("", &format!("decides = \"{decides}\""), &nobody).await;
        assert_eq!((end.stop.word(), end.handoffs, walk.calls), ("no-successor", 0, calls));
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

// ---- programs and files ----

/// A folder with programs and tasks.
struct Shop(TempDir);

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
    fn new(train: &str) -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        self.write(name, &format!("#!/bin/sh\nread -r _\n{script}\n"));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The team of `pass`, which hands to all the others, which hand to nobody.
    fn stage(&self, judge: &str, others: &[&str]) -> Result<Stage, TaskError> {
        let judge = if judge.starts_with('{') { judge.to_owned() } else { format!("{judge:?}") };
        let mut text = format!(
            "schema = \"relevo.team/v1\"\nname = \"shop\"\nstart = \"pass\"\n[tasks]\ntrain = \"train.jsonl\"\n\
             test = \"test.jsonl\"\njudge = {judge}\nmissing = \"make them first\"\n[reward]\ncall = -0.1\nfailure = -0.1\n\
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
fn texts(words: &[&str]) -> String {
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
    let walk = walk(&stage, &mut stage.guard(), task, 0, &mut Greedy { learners }).await.unwrap();
    let path: Vec<&str> = walk.turns.iter().map(|t| stage.team().agent_name(t.agent)).collect();
    assert_eq!((path, walk.quality), (vec!["pass", "upper"], Some(1.0)));
    assert_eq!((&walk.artifact.payload[..], walk.calls, walk.failures), (&b"THREE\n"[..], 2, 0));

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
    let walk = walk(&stage, &mut stage.guard(), task.clone(), 0, &mut Greedy { learners }).await.unwrap();
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

// ---- judges ----

/// What a judge says of a group, in order: quality and confidence, or nothing.
type Says = fn(&[Candidate]) -> Vec<Option<(f64, f64)>>;

/// A judge who looks at the answers of a group, and counts how often it was asked.
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
        Verdict { scores: scores.collect(), tokens: 7, ..Verdict::default() }
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
    let walk = walk(&stage, &mut stage.guard(), task, 0, &mut Greedy { learners }).await.unwrap();
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
