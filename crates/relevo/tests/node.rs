//! A team of which others bring the tasks and judge them: what its file may say of agents elsewhere, how a task comes in and
//! leaves, and that a task which waits can be taken up by another process.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
};

use futures_util::FutureExt;
use relevo::{
    agent::{Failure, Outcome},
    artifact::{Artifact, Facts, Scalar},
    episode::{Crew, Episode, EpisodeError, Step},
    guard::{Guard, StopReason},
    learn::{RunConfig, Session},
    reward::Usual,
    stage::Stage,
    tasks::Task,
    team::TeamSpec,
};
use relevo_core::{
    ids::{AgentId, EpisodeId, HandoffId},
    protocol::{Effect, Event, Handoff, ValueMessage},
    record::Record,
    units::{Return, Value},
};

/// Two agents, and one of another organisation between them in the file.
const TEAM: &str = r#"schema = "relevo.team/v1"
name = "orga"
start = "front"

[run]
max_handoffs = 5

[guards]
max_turns = 9
repetition = { window = 4, times = 3 }
budget = { tokens = 250, on_exceed = "ask" }
allow = [{ from = "reader", to = ["front"] }]

[learner]
decides = "after"
discount = 0.9
values = [-1.0, 1.0]
step = { rule = "poly", exponent = 0.7 }
policy = { rule = "epsilon-greedy", epsilon = { from = 1.0, to = 1.0, over = 1.0 } }

[[agents]]
name = "front"
command = ["./front"]
observes = ["own.seen", "handoff.sender", "call.ended"]
handoffs = ["reader", "far@b", "finish"]

[[agents]]
name = "far@b"
remote = "orgb/far"

[[agents]]
name = "reader"
command = ["./reader"]
operations = ["skim", "study"]
observes = ["kind", "own.seen", "call.operation"]
handoffs = ["front", "far@b", "finish"]
approval = true
"#;

const FRONT: AgentId = AgentId(0);
const FAR: AgentId = AgentId(2);

/// The stage of a node that knows two others, by a clock that stands.
fn stage(text: &str) -> Result<Stage, String> {
    let team = TeamSpec::parse(text).map_err(|(_, message)| message)?;
    let peers = vec!["orgb".to_owned(), "orgc".to_owned()];
    let stage = Stage::for_node(team, Path::new("."), peers).map_err(|e| e.to_string())?;
    Ok(stage.with_clock(Arc::new(|| 1_000)))
}

/// A task that peer 1 hands to the first agent.
fn arrive<'s>(stage: &'s Stage, crew: &mut Crew, number: u64) -> Episode<'s> {
    let facts = Facts::from([("kind".to_owned(), Scalar::Int(number as i64 % 3))]);
    let artifact = Artifact { facts, payload: Arc::from(*b"payload") };
    let task = Task { id: format!("task-{number}"), artifact, expected: None };
    let scene = stage.open(task, Usual::default()).unwrap();
    let episode = EpisodeId(u128::MAX - u128::from(number));
    let id = HandoffId { episode, seq: 3, from: AgentId::peer(1) };
    let entry = Handoff { id, to: stage.start(), clock: number };
    Episode::begin(stage, crew, scene, number, entry, VecDeque::new()).unwrap()
}

/// What an episode does until it waits or has ended.
#[derive(Clone, Debug, PartialEq)]
enum Did {
    Record(AgentId, Record),
    Value(ValueMessage),
    Away(Handoff),
    Finished(HandoffId),
    Calls(AgentId, String),
    Asks(String),
    Ended(StopReason, Vec<AgentId>, Artifact),
}

/// Play on; says whether it waits.
fn play(crew: &mut Crew, episode: &mut Episode<'_>, did: &mut Vec<Did>) -> bool {
    loop {
        did.push(match episode.step(crew).unwrap() {
            Step::Done => continue,
            Step::Record(agent, record) => Did::Record(agent, record),
            Step::Value(message) => Did::Value(message),
            Step::Away(handoff) => Did::Away(handoff),
            Step::Finished(handoff) => Did::Finished(handoff),
            Step::Judge => panic!("nobody judges here"),
            Step::Call(call) => Did::Calls(call.agent, format!("{:?} {:?}", call.handoff, call.operation)),
            Step::Ask(ask) => Did::Asks(format!("{} {:?}", ask.id, ask.asked)),
            Step::Ended => {
                let end = episode.end();
                Did::Ended(end.stop, end.path.clone(), episode.scene().result())
            }
        });
        match did.last() {
            Some(Did::Calls(..) | Did::Asks(_)) => return true,
            Some(Did::Ended(..)) => return false,
            _ => {}
        }
    }
}

/// Give an episode what it waits for: the same for the same, and now and then a failure, or a no.
fn answer(crew: &mut Crew, episode: &mut Episode<'_>, waits_for: &Did) {
    let calls = episode.calls();
    let Did::Calls(agent, _) = waits_for else {
        let granted = episode.end().episode % 7 != 6;
        return episode.answered(crew, granted, "somebody".into());
    };
    let mut artifact = episode.scene().artifact().clone();
    let outcome = if calls % 4 == 3 {
        Outcome::failed(artifact, Failure::Refused("no".into()))
    } else {
        artifact.facts.insert("calls".into(), Scalar::Int(-i64::from(calls)));
        artifact.payload = [&artifact.payload[..], b"+"].concat().into();
        let seen = [Scalar::Bool(true), Scalar::Text("much".into())][agent.0 as usize].clone();
        let private = Facts::from([("seen".to_owned(), seen)]);
        Outcome { private, tokens: 70, money: 0.5, reward: Some(-0.1), ..Outcome::done(artifact) }
    };
    episode.called(*agent, outcome, 5);
}

/// Play to the end, by another process at every turn.
fn play_hopping(stage: &Stage, mut crew: Crew, bytes: &[u8]) -> Vec<Did> {
    let mut episode = Episode::restore(stage, &crew, bytes).unwrap();
    let mut did = vec![];
    while play(&mut crew, &mut episode, &mut did) {
        let bytes = episode.checkpoint().unwrap();
        episode = Episode::restore(stage, &crew, &bytes).unwrap();
        assert_eq!(episode.checkpoint().unwrap(), bytes);
        let mut again = vec![];
        assert!(play(&mut crew, &mut episode, &mut again));
        assert_eq!(again, did[did.len() - 1..], "the same call or question");
        answer(&mut crew, &mut episode, &again[0]);
    }
    did
}

#[test]
fn what_waits_goes_on_in_another_process_as_it_would_have() {
    let stage = stage(TEAM).unwrap();
    let mut crew = Crew::new(&stage, 7, 100).unwrap();
    let (mut met, mut longest) = (BTreeSet::new(), 0);
    for number in 0..60 {
        let mut episode = arrive(&stage, &mut crew, number);
        let (mut did, mut elsewhere) = (vec![], vec![]);
        assert!(matches!(episode.checkpoint(), Err(EpisodeError::Unsaved(_))), "it has only begun");
        while play(&mut crew, &mut episode, &mut did) {
            let bytes = episode.checkpoint().unwrap();
            longest = longest.max(bytes.len());
            elsewhere.push((did.len() - 1, play_hopping(&stage, crew.clone(), &bytes)));
            answer(&mut crew, &mut episode, did.last().unwrap());
        }
        assert!(matches!(episode.checkpoint(), Err(EpisodeError::Unsaved(_))), "it has ended");
        for (at, then) in elsewhere {
            assert_eq!(then, did[at..], "task {number} from step {at} on");
        }
        met.extend(did.iter().map(|did| match did {
            Did::Record(_, record) => format!("{record:?}").split([' ', '{']).next().unwrap().to_owned(),
            Did::Asks(asked) => format!("asks {}", asked.contains("budget-tokens")),
            Did::Ended(stop, ..) => stop.word().to_owned(),
            other => format!("{other:?}").split('(').next().unwrap().to_owned(),
        }));
    }
    for expected in ["Masked", "Value", "Away", "Finished", "asks false", "asks true", "denied"] {
        assert!(met.contains(expected), "no {expected} in {met:?}");
    }
    assert!(longest < 300, "{longest} bytes");
}

#[test]
fn what_was_not_written_down_is_refused() {
    let stage = stage(TEAM).unwrap();
    let mut crew = Crew::new(&stage, 7, 100).unwrap();
    let mut episode = arrive(&stage, &mut crew, 1);
    assert!(play(&mut crew, &mut episode, &mut vec![]));
    let bytes = episode.checkpoint().unwrap();
    let restore = |bytes: &[u8]| Episode::restore(&stage, &crew, bytes).err().map(|e| e.to_string());
    assert_eq!(restore(&bytes), None);
    for length in 0..bytes.len() {
        assert!(restore(&bytes[..length]).is_some(), "cut off at {length}");
    }
    for place in 0..bytes.len() {
        for flip in [1, 0x20, 0x80] {
            let mut other = bytes.clone();
            other[place] ^= flip;
            restore(&other);
        }
    }
    let later = [&bytes[..1], &[bytes[1..14].to_vec(), b"9".to_vec()].concat(), &bytes[15..]].concat();
    let huge = [&bytes[..15], &[0x9b, 0xff, 0, 0, 0, 0, 0, 0, 0]].concat();
    for (found, said) in [
        (restore(&later), "begins with \"relevo.stay/v9\"; this program reads \"relevo.stay/v1\""),
        (restore(b"{}"), "does not begin with \"relevo.stay/v1\""),
        (restore(&[&bytes[..], b"x"].concat()), "goes on after its end"),
        (restore(&huge), "cannot be read at byte"),
    ] {
        assert!(found.as_ref().is_some_and(|found| found.contains(said)), "{found:?}");
    }
    // Another team has not the same agents.
    let small =
        TEAM.split("[guards]").next().unwrap().to_owned() + "[[agents]]\nname = \"front\"\nforwards = true\n";
    let small = small + "observes = []\nhandoffs = [\"finish\"]\n";
    let small = self::stage(&small).unwrap();
    let small_crew = Crew::new(&small, 7, 100).unwrap();
    let elsewhere = (2..).find_map(|number| {
        let (mut episode, mut did) = (arrive(&stage, &mut crew, number), vec![]);
        while play(&mut crew, &mut episode, &mut did) {
            if episode.end().path.contains(&AgentId(1)) {
                return episode.checkpoint().ok();
            }
            answer(&mut crew, &mut episode, did.last().unwrap());
        }
        None
    });
    let found = Episode::restore(&small, &small_crew, &elsewhere.unwrap()).map(drop).unwrap_err();
    assert!(found.to_string().contains("has an agent 1, which the team has not"), "{found}");
}

#[test]
fn what_comes_back_is_learned_from_after_the_task_has_left() {
    let stage = stage(TEAM).unwrap();
    let mut crew = Crew::new(&stage, 7, 100).unwrap();
    assert_eq!((stage.remote(FRONT), stage.remote(FAR)), (None, Some(("orgb", "far"))));
    let names: Vec<&str> = stage.participants(1).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["front", "reader"], "the others' agents come last and take no part");
    assert_eq!(stage.participant_name(AgentId::peer(1)), "orgc");
    let (mut away, mut finished) = (0, 0);
    for number in 0..40 {
        let mut episode = arrive(&stage, &mut crew, number);
        let mut did = vec![];
        while play(&mut crew, &mut episode, &mut did) {
            answer(&mut crew, &mut episode, did.last().unwrap());
        }
        let entry =
            HandoffId { episode: EpisodeId(u128::MAX - u128::from(number)), seq: 3, from: AgentId::peer(1) };
        let values: Vec<HandoffId> = did
            .iter()
            .filter_map(|did| if let Did::Value(m) = did { Some(m.handoff) } else { None })
            .collect();
        assert_eq!(values, [entry], "one value goes back to the organisation that handed over");
        let [.., left, Did::Ended(stop, ..)] = &did[..] else { panic!("{did:?}") };
        let (handoff, event) = match left {
            Did::Away(Handoff { id, to: FAR, .. }) => {
                away += 1;
                (*id, Event::Valued(ValueMessage::new(*id, Value::new(0.5).unwrap())))
            }
            Did::Finished(id) => {
                finished += 1;
                assert_eq!(*stop, StopReason::Finished);
                (*id, Event::Finished { handoff: *id, reward: Return::new(0.8).unwrap() })
            }
            _ => continue,
        };
        let maker = handoff.from;
        let is_pending = |crew: &Crew| crew.participants[maker.0 as usize].pending().any(|id| id == handoff);
        assert!(is_pending(&crew));
        let told = crew.tell(&stage, maker, event.clone()).unwrap();
        let settles = |(agent, effect): &(AgentId, Effect)| {
            *agent == maker
                && matches!(effect, Effect::Record(Record::Settled { handoff: id, .. }) if *id == handoff)
        };
        assert!(told.iter().any(settles), "{told:?}");
        assert!(!is_pending(&crew));
        assert_eq!(crew.tell(&stage, maker, event).unwrap(), [], "once");
    }
    assert!(away > 5 && finished > 5, "{away} {finished}");
    assert!(crew.names.values().any(|name| name.contains("handoff.sender=orgc")), "{:?}", crew.names);
    let nobody = crew.tell(&stage, FAR, Event::Replan).unwrap_err();
    assert!(matches!(nobody, EpisodeError::Nobody { agent: FAR }), "{nobody}");

    // A task that is given up while it waits leaves nothing behind.
    let (mut episode, mut did) = (arrive(&stage, &mut crew, 99), vec![]);
    assert!(play(&mut crew, &mut episode, &mut did));
    let active = |crew: &Crew| crew.participants[0].active().count();
    assert_eq!(active(&crew), 1);
    let told = episode.give_up(&mut crew).unwrap();
    assert!(matches!(told[..], [(FRONT, Effect::Record(Record::Expired { .. }))]), "{told:?}");
    assert_eq!(active(&crew), 0);

    // Where guards leave nothing to choose, no value goes back, and how it ended says why.
    let shut = TEAM
        .replace("decides = \"after\"", "decides = \"before\"")
        .replace("from = \"reader\", to = [\"front\"]", "from = \"front\", to = [\"reader\"]")
        .replace("[\"reader\", \"far@b\", \"finish\"]", "[\"far@b\"]");
    let shut = self::stage(&shut).unwrap();
    let mut crew = Crew::new(&shut, 7, 100).unwrap();
    let mut did = vec![];
    assert!(!play(&mut crew, &mut arrive(&shut, &mut Crew::new(&shut, 7, 100).unwrap(), 1), &mut did));
    let [Did::Record(AgentId::ORIGIN, Record::Masked { .. }), Did::Ended(stop, path, _)] = &did[..] else {
        panic!("{did:?}")
    };
    assert_eq!((*stop, &path[..]), (StopReason::Guarded(Guard::Allow), &[][..]));
}

#[test]
fn what_makes_no_node_is_refused_with_what_to_do() {
    let far = "name = \"far@b\"\nremote = \"orgb/far\"";
    let at = |key: &str| format!("{far}\n{key}");
    let learner = |key: &str| format!("[learner]\n{key}");
    let after = "decides = \"after\"";
    let before = |key: &str| format!("decides = \"before\"\nextensions = {{ {key} }}");
    for (from, to, said) in [
        (
            far,
            at("observes = []"),
            "\"far@b\" is another organisation's, which knows its observes: leave observes out",
        ),
        (far, at("command = [\"x\"]"), "leave command out"),
        (far, at("approval = true"), "leave approval out"),
        (far, at("timeout_ms = 5"), "leave timeout_ms out"),
        (far, at("remot = \"x\""), "unknown key \"remot\"; did you mean \"remote\"?"),
        (far, far.replace("orgb/far", "far"), "remote = \"PEER/AGENT\""),
        (far, far.replace("orgb/far", "/far"), "\"\" is no name"),
        (far, far.replace("orgb/far", "orgb/far/away"), "\"far/away\" is no name"),
        (far, far.replace("orgb/far", "orgbb/far"), "no peer \"orgbb\" is known; did you mean \"orgb\"?"),
        ("start = \"front\"", "start = \"far@b\"".into(), "begin with an agent of this team"),
        ("on_exceed = \"ask\"", "on_exceed = { hand_off = \"far@b\" }".into(), "cannot take a task over"),
        (
            "[learner]",
            learner("credit = { rule = \"relay\", lambda = 0.5 }"),
            "credit by relay cannot be served",
        ),
        ("[learner]", learner("credit = { rule = \"trajectory\" }"), "credit by trajectory cannot be served"),
        (after, before("local_model = true"), "the local model cannot be served"),
        (after, before("refresh = 0.1"), "refresh cannot be served"),
    ] {
        assert!(TEAM.contains(from));
        let found = stage(&TEAM.replacen(from, &to, 1)).map(drop).unwrap_err();
        assert!(found.contains(said), "{to}: {found}");
    }
    let coordinated = "schema = \"relevo.team/v1\"\nname = \"desk\"\n[coordinator]\n";
    let cells = "[[agents]]\nname = \"solver\"\ncommand = [\"x\"]\n";
    let found = stage(&format!("{coordinated}{cells}")).map(drop).unwrap_err();
    assert!(found.contains("[coordinator] cannot be served"), "{found}");

    // Who has no node leaves them out, or has tasks.
    let alone = |text: &str| {
        Stage::new(TeamSpec::parse(text).unwrap(), Path::new("."), None).map(drop).unwrap_err().to_string()
    };
    let served = "agent \"far@b\" is another organisation's: serve the team (relevo serve), or leave it out";
    assert_eq!(alone(TEAM), served);
    let without = TEAM.replace(&format!("[[agents]]\n{far}\n\n"), "").replace("\"far@b\", ", "");
    assert!(alone(&without).contains("where do tasks come from? add [tasks]"));
    // And a node has nothing to learn on.
    let (stage, folder) = (stage(TEAM).unwrap(), tempfile::tempdir().unwrap());
    let mut session = Session::start(&stage, folder.path(), RunConfig { seed: 1, episodes: 1 }).unwrap();
    let run = session.run(|_| ControlFlow::Continue(()));
    let found = run.now_or_never().expect("it does not come to a call").unwrap_err().to_string();
    assert!(found.contains("a node has no tasks of its own"), "{found}");
}
