//! The policy file: what is written is read back and decides alike; anything else is refused, with the place.

mod common;

use common::*;
use proptest::prelude::*;
use relevo_core::{
    Rng,
    ids::EpisodeId,
    learner::{Credit, Estimator, Learner, LearnerSpec},
    observation::{Observation, Signature},
    policy::{PolicySpec, Posterior, Ucb},
    policy_file::{AgentPolicy, EdgePolicy, PolicyFile, PolicyFileError, SCHEMA, Source},
    pools::PooledSpec,
    record::Table,
    step::StepRule,
};
use std::collections::BTreeMap;

fn source() -> Source {
    let (team, config, ledger) = ("carry \"the\" baton".to_string(), "ab".repeat(32), "cd".repeat(32));
    Source { team, config, seed: u64::MAX, episodes: 60, ledger, merged: vec![] }
}

fn names(width: usize, prefix: &str) -> Vec<String> {
    (0..width).map(|i| format!("{prefix}{i}")).collect()
}

fn policy_of(learner: &Learner, name: &str) -> AgentPolicy {
    let width = |table| learner.graph(table).map_or(0, |g| g.width());
    let (successors, operations) = (width(Table::Successors), width(Table::Operations));
    AgentPolicy::of(name, names(successors, "to-"), names(operations, "op-"), learner)
}

/// A policy that three agents learned, and their learners.
fn learned(
    change: impl Fn(&mut LearnerSpec),
    regime: relevo_core::learner::Regime,
) -> (PolicyFile, Vec<Learner>) {
    let mut team = Team::ring(regime, |spec| change(&mut spec.learner), 21);
    team.run(0..60);
    let learners: Vec<Learner> = team.members.iter().map(|m| m.participant.learner().clone()).collect();
    let agents =
        learners.iter().zip(["solver", "checker", "editor"]).map(|(l, name)| policy_of(l, name)).collect();
    let names = (0..4).map(|s| (Signature(s), format!("kind={s} \u{e9}\n"))).collect();
    (PolicyFile::new(source(), &names, agents), learners)
}

fn some_text() -> String {
    learned(|_| {}, BEFORE).0.to_text()
}

// ---- What is written is read back ----------------------------------------------------------------------------------

/// Restored from the text, every learner decides with the same probabilities, draws the same choices, and says the
/// same values, in situations known and unknown; what it learns afterwards is the same too.
#[test]
fn a_restored_policy_decides_and_learns_alike() {
    let policies = [
        exploring(0.3),
        PolicySpec::Ucb(Ucb { floor: 0.2, ..Ucb::default() }),
        PolicySpec::Posterior(Posterior { variance: 0.5, floor: 0.1 }),
    ];
    let steps = [StepRule::Poly { exponent: 0.7 }, StepRule::PolyAverage { exponent: 0.6 }];
    for (regime, policy, step) in
        REGIMES.into_iter().flat_map(|r| policies.map(|p| (r, p))).flat_map(|(r, p)| steps.map(|s| (r, p, s)))
    {
        // A small limit, so that the node of the rest is in use as well.
        let change =
            |spec: &mut LearnerSpec| (spec.policy, spec.step, spec.signatures_max) = (policy, step, 3);
        let (file, mut learners) = learned(change, regime);
        let read = PolicyFile::from_text(&file.to_text()).unwrap();
        assert_eq!(read, file);
        for (agent, learner) in read.agents.iter().zip(&mut learners) {
            let mut restored = Learner::new(learner.spec().clone(), &mut Rng::stream(9, "other")).unwrap();
            agent.restore(&mut restored).unwrap();
            assert_eq!(
                policy_of(&restored, &agent.name),
                AgentPolicy { digest: String::new(), ..agent.clone() }
            );
            let mut world = World { signatures: 6, ..World::new(4) };
            let mut streams = [Rng::stream(4, "policy"), Rng::stream(4, "policy")];
            for episode in 0..100 {
                for table in tables_of(regime) {
                    let o = world.observation(learner.graph(*table).unwrap().width());
                    let [a, b] = &mut streams;
                    let found = restored.decide(*table, &o, EpisodeId(episode), 3, a);
                    let expected = learner.decide(*table, &o, EpisodeId(episode), 3, b);
                    assert_eq!(found, expected);
                    assert_eq!(restored.appraise(*table, &o), learner.appraise(*table, &o));
                    let step = relevo_core::learner::Step {
                        observation: o,
                        action: found.action,
                        reward: earned(0.0),
                        tau: lasting(1),
                        usage: Default::default(),
                    };
                    let target = world.rng.unit();
                    assert_eq!(restored.settle(*table, &step, target), learner.settle(*table, &step, target));
                }
            }
        }
    }
}

/// The same content has the same bytes, however it was arrived at.
#[test]
fn the_text_is_canonical() {
    let (file, learners) = learned(|_| {}, BEFORE);
    assert_eq!(some_text(), file.to_text());
    let mut restored = Learner::new(learners[0].spec().clone(), &mut Rng::stream(9, "other")).unwrap();
    file.agents[0].restore(&mut restored).unwrap();
    let agents = [vec![policy_of(&restored, "solver")], file.agents[1..].to_vec()].concat();
    let names = (0..4).map(|s| (Signature(s), format!("kind={s} \u{e9}\n"))).collect();
    assert_eq!(PolicyFile::new(source(), &names, agents).to_text(), file.to_text());
    assert!(file.to_text().ends_with("}\n"));
    assert_eq!(file.name("0000000000000002"), "kind=2 \u{e9}\n");
    assert_eq!(file.name("00000000000000ff"), "00000000000000ff");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Any finite numbers come back with every bit.
    #[test]
    fn numbers_survive_the_text(numbers in proptest::collection::vec(any::<f64>(), 6), counts in any::<(u32, u32, u64)>()) {
        prop_assume!(numbers.iter().all(|x| x.is_finite()));
        let (visits, failures, seed) = (counts.0, counts.1, counts.2);
        let edge = EdgePolicy {
            action: 0,
            value: numbers[0],
            decision_value: numbers[1],
            visits,
            failures,
            targets: numbers[2],
            targets_m2: numbers[3],
            tokens: numbers[4],
            tokens_m2: numbers[5],
            spread: 0.0,
            ..EdgePolicy::default()
        };
        let mut agent = policy_of(&learned_little(), "a");
        agent.tables[0].nodes[0].edges[0] = edge.clone();
        let file = PolicyFile::new(Source { seed, ..source() }, &BTreeMap::new(), vec![agent]);
        let read = PolicyFile::from_text(&file.to_text());
        let read = read.map_err(|e| TestCaseError::fail(e.to_string()))?;
        let found = &read.agents[0].tables[0].nodes[0].edges[0];
        let bits = |e: &EdgePolicy| [e.value, e.decision_value, e.targets, e.targets_m2, e.tokens, e.tokens_m2].map(f64::to_bits);
        prop_assert_eq!(bits(found), bits(&edge));
        prop_assert_eq!(found, &edge);
    }

    /// Whatever text there is, it is refused or taken, without a panic.
    #[test]
    fn any_text_is_refused_without_a_panic(text in "\\PC{0,80}", at in any::<u16>(), with in "[-0-9a-fNe+.\",{}\\[\\]]{0,3}") {
        prop_assert!(PolicyFile::from_text(&text).is_err());
        let mut text = some_text();
        let place = usize::from(at) % text.len();
        if text.is_char_boundary(place) && text.is_char_boundary(place + 1) {
            text.replace_range(place..place + 1, &with);
            let same = text == some_text();
            prop_assert_eq!(PolicyFile::from_text(&text).is_ok(), same);
        }
    }
}

fn learned_little() -> Learner {
    let mut a = Member::new(spec(0, &[1], BEFORE), 1);
    a.tell(received(opening(1, 0), seen_only(3, &[0])));
    a.tell(performed(opening(1, 0).id, 1.0, 1, relevo_core::protocol::Next::Ended));
    a.participant.learner().clone()
}

// ---- What is refused -----------------------------------------------------------------------------------------------

fn refusal(text: &str) -> (PolicyFileError, String) {
    let error = PolicyFile::from_text(text).expect_err("it should be refused");
    let message = error.to_string();
    (error, message)
}

/// `text` with the first `old` after `from` replaced.
fn edited(text: &str, from: &str, old: &str, new: &str) -> String {
    let start = text.find(from).unwrap();
    let place = start + text[start..].find(old).unwrap();
    format!("{}{new}{}", &text[..place], &text[place + old.len()..])
}

fn line_of(text: &str, what: &str) -> usize {
    text[..text.find(what).unwrap()].lines().count()
}

#[test]
fn another_schema_is_refused_by_name() {
    let text = some_text().replace(SCHEMA, "relevo.policy/v2");
    let (error, message) = refusal(&text);
    assert!(matches!(error, PolicyFileError::Schema { .. }), "{message}");
    assert!(message.contains("\"relevo.policy/v2\"") && message.contains(SCHEMA), "{message}");
    // Also if nothing else in it is known.
    let (_, message) = refusal("{\"schema\": \"relevo.policy/v9\", \"whatever\": 1}");
    assert!(message.contains("v9"), "{message}");
}

#[test]
fn an_unknown_key_is_refused_with_its_name_and_line() {
    let text = some_text();
    for place in ["\"seed\"", "\"signature\"", "\"successors\"", "\"initial\"", "\"visits\"", "\"source\""] {
        let line = line_of(&text, place);
        let (error, message) = refusal(&edited(&text, place, place, &format!("\"flavour\": 1, {place}")));
        assert!(matches!(error, PolicyFileError::Parse(_)), "{message}");
        assert!(message.contains("flavour"), "{message}");
        assert!(message.contains(&format!("line {line} ")), "{message}, not line {line}");
    }
    // A key that is missing.
    let (_, message) = refusal(&edited(&text, "\"failures\"", "\"failures\"", "\"visits\""));
    assert!(message.contains("duplicate field `visits`"), "{message}");
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_their_line() {
    let text = some_text();
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|l| l.contains("\"decision_value\"")).unwrap();
    for bad in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "null", "\"1\"", "0x10", "1.", ".5", "+1"]
    {
        let line = format!("                  \"decision_value\": {bad},");
        let mut lines = lines.clone();
        lines[at] = &line;
        let (error, message) = refusal(&(lines.join("\n") + "\n"));
        assert!(matches!(error, PolicyFileError::Parse(_)), "{bad}: {message}");
        assert!(message.contains(&format!("line {}", at + 1)), "{bad}: {message}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let text = some_text();
    for length in (0..text.len()).filter(|n| n % 50 == 0 && text.is_char_boundary(*n)) {
        let (error, message) = refusal(&text[..length]);
        assert!(matches!(error, PolicyFileError::Parse(_)), "{length}: {message}");
        // Within a number what is left may be no number.
        let cut = message.contains("EOF") || message.contains("invalid number");
        assert!(cut && message.contains("line"), "{length}: {message}");
    }
    let (_, message) = refusal(text.trim_end());
    assert!(message.contains("canonical"), "{message}");
}

/// Every number of an agent, its names, and what is beside the agents.
#[test]
fn an_edited_value_is_refused_with_the_part_that_was_changed() {
    let text = some_text();
    let file = PolicyFile::from_text(&text).unwrap();
    type Edit = fn(&mut PolicyFile);
    let table: &[(Edit, &str)] = &[
        (|f| f.agents[1].tables[0].nodes[0].edges[0].value += 0.5, "agent \"checker\""),
        (|f| f.agents[1].tables[0].nodes[0].edges[0].visits += 1, "agent \"checker\""),
        (|f| f.agents[2].name = "writer".to_string(), "agent \"writer\""),
        (|f| f.agents[0].successors.swap(0, 1), "agent \"solver\""),
        (|f| drop(f.agents[0].tables[0].nodes.pop()), "agent \"solver\""),
        (|f| f.agents[0].tables[0].initial = 1.0, "agent \"solver\""),
        (|f| f.source.seed = 3, "the file"),
        (|f| f.source.ledger = "00".repeat(32), "the file"),
        (|f| drop(f.signatures.pop_first()), "the file"),
        (|f| drop(f.agents.pop()), "the file"),
        (|f| f.agents.swap(0, 1), "the file"),
        (|f| f.digest = "00".repeat(32), "the file"),
        (|f| f.agents[0].digest = "00".repeat(32), "agent \"solver\""),
    ];
    for (edit, part) in table {
        let mut changed = file.clone();
        edit(&mut changed);
        let (error, message) = refusal(&changed.to_text());
        assert!(matches!(error, PolicyFileError::Tampered { .. }), "{message}");
        assert!(message.contains(part), "{message}, not {part}");
    }
}

#[test]
fn a_reformatted_file_is_refused_with_the_first_line_that_differs() {
    let text = some_text();
    let line = line_of(&text, "\"visits\"");
    let swapped = {
        let mut lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|l| l.contains("\"seed\"")).unwrap();
        lines.swap(at, at + 1);
        (lines.join("\n") + "\n", at + 1)
    };
    let compact: String = text.lines().map(str::trim_start).collect();
    let table = [
        (edited(&text, "\"visits\"", ": ", ":  "), line),
        (edited(&text, "\"visits\"", ": ", ":"), line),
        (edited(&text, "\"visits\"", "\n", " \n"), line),
        (edited(&text, "\"visits\"", "\n", "\r\n"), line),
        (edited(&text, "\"visits\"", "\n", "\n\n"), line + 1),
        (format!("\n{text}"), 1),
        (format!("{text}\n"), text.lines().count() + 1),
        (text.replace("\"seed\": 18446744073709551615", "\"seed\":  18446744073709551615"), swapped.1),
        swapped,
        (compact, 1),
        (text.replace('\u{e9}', "\\u00e9"), line_of(&text, "\u{e9}")),
    ];
    for (i, (text, line)) in table.into_iter().enumerate() {
        let (error, message) = refusal(&text);
        assert!(matches!(error, PolicyFileError::NotCanonical { .. }), "{i}: {message}");
        assert!(message.contains(&format!("line {line} ")), "{i}: {message}, not line {line}");
    }
}

// ---- What a learner refuses ----------------------------------------------------------------------------------------

#[test]
fn a_policy_of_another_team_is_refused() {
    let (file, learners) = learned(|_| {}, ADAPTABLE);
    let agent = &file.agents[0];
    let fresh = |spec: LearnerSpec| Learner::new(spec, &mut Rng::stream(1, "x")).unwrap();
    let refused = |agent: &AgentPolicy, spec: LearnerSpec| {
        agent.restore(&mut fresh(spec)).expect_err("it should be refused").to_string()
    };
    let spec_of = |regime| spec(0, &[1, 2], regime).learner;
    assert!(agent.restore(&mut fresh(learners[0].spec().clone())).is_ok());
    let message = refused(agent, spec_of(BEFORE));
    assert!(message.contains("solver") && message.contains("operation table"), "{message}");
    let message = refused(agent, spec(0, &[], ADAPTABLE).learner);
    assert!(message.contains("column") && message.contains("does not exist"), "{message}");
    let mut other = agent.clone();
    other.tables[0].nodes[0].signature = "not a key".to_string();
    let message = refused(&other, spec_of(ADAPTABLE));
    assert!(message.contains("\"not a key\" is no signature key"), "{message}");
    let mut other = agent.clone();
    other.tables[0].parameters = "0g".to_string();
    assert!(refused(&other, spec_of(ADAPTABLE)).contains("hexadecimal"));
}

#[test]
fn means_and_intervals_are_those_of_the_sums() {
    let mut edge = EdgePolicy { visits: 3, targets: 9.0, targets_m2: 8.0, ..EdgePolicy::default() };
    assert_eq!(edge.mean(), 3.0);
    assert_eq!(edge.half_width(), Some(1.96 * (8.0f64 / 2.0 / 3.0).sqrt()));
    edge.visits = 1;
    assert_eq!(edge.half_width(), None);
    assert!(matches!(spec(0, &[], BEFORE).learner.credit, Credit::ValuePassing));
}

// ---- Merged ----------------------------------------------------------------------------------------------------------

/// A policy of one agent that learned sample means of these (situation, column, target).
fn of_samples(columns: &[&str], samples: &[(u64, u32, f64)]) -> PolicyFile {
    use relevo_core::{ids::ActionId, learner::Step, observation::Features, units::Usage};
    let width = columns.len() as u32;
    let spec = LearnerSpec {
        estimator: Estimator::Pooled(PooledSpec { groups: vec![], strength: 5.0 }),
        step: StepRule::Mean,
        credit: Credit::Trajectory,
        successors: width,
        ..spec(0, &[], BEFORE).learner
    };
    let mut learner = Learner::new(spec, &mut Rng::stream(1, "initial")).unwrap();
    for (i, (s, action, target)) in samples.iter().enumerate() {
        let features = Features::Coarser([Signature(100 + s % 2)].into());
        let observation = Observation { features, ..seen(*s, columns.len()) };
        let usage = Usage { tokens: 7 * i as u64, failures: i as u32 % 2 };
        let (action, reward, tau) = (ActionId(*action), earned(0.0), lasting(1));
        learner.settle(Table::Successors, &Step { observation, action, reward, tau, usage }, *target);
    }
    let columns = columns.iter().map(|name| name.to_string()).collect();
    PolicyFile::new(source(), &BTreeMap::new(), vec![AgentPolicy::of("a", columns, vec![], &learner)])
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Merged, two policies are the policy that learned from all samples, pools included, up to rounding.
    #[test]
    fn a_merged_policy_is_that_of_all_samples(
        first in proptest::collection::vec((0u64..4, 0u32..3, -10.0..10.0f64), 1..40),
        second in proptest::collection::vec((0u64..4, 0u32..3, -10.0..10.0f64), 1..40),
    ) {
        let columns = ["x", "y", "z"];
        // The second knows the columns in another order, and one of them not at all.
        let turned: Vec<_> = second.iter().filter(|s| s.1 < 2).map(|(s, a, y)| (*s, 1 - a, *y)).collect();
        let parts = [of_samples(&columns, &first), of_samples(&["y", "x", "w"], &turned)];
        let merged = PolicyFile::merge(&parts).unwrap();
        prop_assert_eq!(PolicyFile::from_text(&merged.to_text()).unwrap(), merged.clone());
        prop_assert_eq!(merged.source.episodes, 120);
        prop_assert_eq!(&merged.source.merged, &parts.clone().map(|part| part.digest));
        prop_assert_eq!(&merged.agents[0].successors, &["x", "y", "z", "w"]);

        let all: Vec<_> = first.iter().copied().chain(second.iter().copied().filter(|s| s.1 < 2)).collect();
        let whole = of_samples(&["x", "y", "z", "w"], &all);
        let [found, expected] = [&merged, &whole].map(|file| &file.agents[0].tables[0]);
        for (found, expected) in [(&found.nodes, &expected.nodes), (&found.pools, &expected.pools)] {
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                prop_assert_eq!(&found.signature, &expected.signature);
                prop_assert_eq!(found.edges.len(), expected.edges.len());
                for (f, e) in found.edges.iter().zip(&expected.edges) {
                    prop_assert_eq!((f.action, f.visits), (e.action, e.visits));
                    for (f, e) in [(f.value, e.value), (f.targets, e.targets), (f.targets_m2, e.targets_m2)] {
                        prop_assert!(close(f, e), "{} for {}", f, e);
                    }
                    prop_assert!(close(f.decision_value, e.decision_value));
                }
            }
        }
    }
}

#[test]
fn what_merging_keeps_of_single_edges() {
    use relevo_core::policy_file::PriorPolicy;
    let merged = |edges: [EdgePolicy; 2]| {
        let files = edges.map(|edge| {
            let mut file = of_samples(&["x"], &[(0, 0, 0.0)]);
            file.agents[0].tables[0].nodes[0].edges = vec![edge];
            PolicyFile::new(file.source, &BTreeMap::new(), file.agents)
        });
        PolicyFile::merge(&files).unwrap().agents[0].tables[0].nodes[0].edges[0].clone()
    };
    let edge = |visits, value, prior: Option<u32>| EdgePolicy {
        visits,
        value,
        decision_value: value,
        failures: 1,
        lead: Some(format!("{visits:016x}")),
        prior: prior.map(|weight| PriorPolicy { value, weight }),
        ..EdgePolicy::default()
    };
    let cases = [
        // Visits outvote a prior; of two priors the stronger is kept; of the leads, the last.
        ([edge(1, 4.0, None), edge(3, 0.0, None)], (1.0, 4, None)),
        ([edge(2, 4.0, None), edge(0, 1.0, Some(5))], (4.0, 2, Some(5))),
        ([edge(0, 4.0, Some(3)), edge(0, 1.0, Some(5))], (1.0, 0, Some(5))),
        ([edge(0, 4.0, Some(6)), edge(0, 1.0, Some(5))], (4.0, 0, Some(6))),
        ([edge(0, 4.0, None), edge(2, 1.0, None)], (1.0, 2, None)),
    ];
    for (edges, (value, visits, weight)) in cases {
        let lead = edges[1].lead.clone();
        let found = merged(edges);
        assert_eq!(
            (found.value, found.decision_value, found.visits, found.failures),
            (value, value, visits, 2)
        );
        assert_eq!((found.prior.map(|prior| prior.weight), found.lead), (weight, lead));
    }
}

#[test]
fn policies_that_do_not_go_together_are_not_merged() {
    let base = || of_samples(&["x"], &[(0, 0, 1.0)]);
    let changed = |change: &dyn Fn(&mut AgentPolicy)| {
        let mut file = of_samples(&["x"], &[(0, 0, 2.0)]);
        change(&mut file.agents[0]);
        PolicyFile::new(file.source, &BTreeMap::new(), file.agents)
    };
    let both = PolicyFile::merge(&[base(), changed(&|_| {})]).unwrap();
    let cases = [
        (vec![], "there is none"),
        (vec![base(), base()], "would count twice"),
        (vec![both, base()], "would count twice"),
        (vec![base(), changed(&|agent| agent.tables[0].initial = 0.5)], "began at 0 and at 0.5"),
        (vec![base(), changed(&|agent| agent.tables[0].parameters = "00".into())], "only tables"),
        (vec![base(), changed(&|agent| agent.tables.clear())], "chooses its operations"),
        (vec![base(), changed(&|agent| agent.successors.clear())], "has no name"),
    ];
    for (files, said) in cases {
        let error = PolicyFile::merge(&files).unwrap_err();
        assert!(matches!(error, PolicyFileError::Merge(_)) && error.to_string().contains(said), "{error}");
    }
    // An agent that only one of them knows is kept as it is.
    let other = changed(&|agent| agent.name = "b".into());
    let merged = PolicyFile::merge(&[base(), other.clone()]).unwrap();
    assert_eq!(merged.agents, [base().agents, other.agents].concat());
}
