//! A coordinated team without its driver: plans walked to their end, what is required, and what is refused.

use std::sync::Arc;

use proptest::prelude::*;
use relevo::{
    artifact::{Facts, Scalar},
    coordinate::{
        coordination::Coordination,
        document::Document,
        features::Regime,
        plan::{Move, Role},
        progress::{Progress, Reply},
        stand::{Decision, Stand},
    },
    guard::StopReason,
    team::TeamSpec,
};
use relevo_core::{
    ids::ActionId,
    observation::{ActionSet, Signature},
};

const HEAD: &str = "schema = \"relevo.team/v1\"\nname = \"cells\"\n[simulate]\nenvironment = \"x@1\"\n[learner]\n\
                    policy = { rule = \"ucb\" }\n";
const CELLS: [&str; 9] = [
    "planner",
    "memory",
    "web_search",
    "solver_cot",
    "solver_brief",
    "critic",
    "verifier",
    "synthesiser",
    "evaluator",
];

fn team(coordinator: &str, cells: &[&str]) -> TeamSpec {
    let agents = cells.iter().map(|cell| format!("[[agents]]\nname = {cell:?}\nsimulate = \"x\"\n"));
    let text = format!("{HEAD}[coordinator]\n{coordinator}\n{}", agents.collect::<String>());
    TeamSpec::parse(&text).unwrap_or_else(|(line, message)| panic!("{line:?}: {message}\n{text}"))
}

fn coordination(coordinator: &str, cells: &[&str]) -> Arc<Coordination> {
    Arc::new(Coordination::of(&team(coordinator, cells)).unwrap())
}

/// The features that make a task one of this kind.
fn features(regime: Regime) -> &'static str {
    match regime {
        Regime::Contradictory => r#"{"contradiction_risk":0.8}"#,
        Regime::Ambiguous => r#"{"ambiguity_level":0.8}"#,
        Regime::EvidenceHeavy => r#"{"evidence_availability":0.8,"verification_need":0.7}"#,
        Regime::HighRisk => r#"{"verification_need":0.9}"#,
        Regime::Exploratory => r#"{"novelty_level":0.8}"#,
        Regime::Straightforward => "{}",
    }
}

fn open(coordination: &Arc<Coordination>, regime: Regime) -> Progress {
    let payload = format!(r#"{{"features":{},"goal":"why"}}"#, features(regime));
    Progress::open(coordination, &Facts::new(), payload.as_bytes()).unwrap()
}

/// What a cell that does its work makes of a document.
fn acted(role: Role, before: &Document) -> Vec<u8> {
    let mut text: serde_json::Value = serde_json::from_slice(&before.write()).unwrap();
    let evidence = serde_json::json!([{"source": "s", "text": "t"}]);
    match role {
        Role::Planner => text["subproblem"] = "how".into(),
        Role::Memory | Role::WebSearch => text["evidence"] = evidence,
        Role::Solver => text["draft_answer"] = "so".into(),
        Role::Critic => text["critique"] = "but".into(),
        Role::Verifier => text["verification"] = serde_json::json!({"status": "supported"}),
        Role::Synthesiser => text["merged_answer"] = "thus".into(),
        Role::Evaluator => text["done"] = true.into(),
    }
    serde_json::to_vec(&text).unwrap()
}

fn decision(progress: &Progress) -> Decision {
    match progress.stand() {
        Stand::Decide(decision) => decision,
        Stand::Stop(reason) => panic!("it has stopped: {reason:?}"),
    }
}

/// Take a column, and let a cell that it invokes do its work, or fail.
fn take(coordination: &Coordination, progress: &mut Progress, action: ActionId, fails: bool) {
    match coordination.move_of(action) {
        Move::Skip(_) => progress.skip(action),
        Move::Invoke(cell) | Move::Only(cell) => {
            let payload = acted(coordination.plan().cells()[cell].role, progress.document());
            let reply = if fails { Reply::Failed } else { Reply::Document(&payload) };
            progress.performed(action, reply).unwrap();
        }
    }
}

fn names(coordination: &Coordination, columns: &ActionSet) -> String {
    columns.iter().map(|a| coordination.column_name(a)).collect::<Vec<_>>().join(" ")
}

/// Walk by names; returns what was admissible at each step, and the end.
fn walk(coordination: &Arc<Coordination>, mut progress: Progress, steps: &[&str]) -> (Vec<String>, Progress) {
    let mut legal = vec![];
    for step in steps {
        let Decision { legal: columns, .. } = decision(&progress);
        legal.push(names(coordination, &columns));
        let (fails, name) = step.strip_prefix("FAIL:").map_or((false, *step), |name| (true, name));
        let action = coordination.plan().action(name).unwrap();
        assert!(columns.contains(action), "{name} is not among {}", legal.last().unwrap());
        take(coordination, &mut progress, action, fails);
    }
    (legal, progress)
}

#[test]
fn every_plan_comes_to_its_end() {
    let cells = ["planner", "memory", "solver", "critic", "verifier", "synthesiser", "evaluator"];
    let coordination = coordination("skips = false\nalone = false", &cells);
    // What is taken, always the first; where more is admissible, it stands behind.
    let branches = ["planner", "memory", "solver", "verifier", "solver", "verifier", "synthesiser evaluator"];
    let plans: [(Regime, Vec<&str>); 6] = [
        (Regime::Straightforward, vec!["planner", "solver", "evaluator"]),
        (Regime::Exploratory, vec!["planner memory", "memory solver", "solver", "evaluator"]),
        (
            Regime::EvidenceHeavy,
            vec!["planner memory", "memory solver", "solver", "verifier evaluator", "evaluator"],
        ),
        (
            Regime::HighRisk,
            vec!["planner memory", "memory solver", "solver", "verifier evaluator", "evaluator"],
        ),
        (Regime::Ambiguous, {
            let mut plan = branches.to_vec();
            plan[0] = "planner memory";
            plan.push("evaluator");
            plan
        }),
        (
            Regime::Contradictory,
            vec![
                "planner memory",
                "memory",
                "solver",
                "critic verifier",
                "verifier",
                "solver",
                "critic verifier",
                "verifier",
                "synthesiser evaluator",
                "evaluator",
            ],
        ),
    ];
    for (regime, expected) in plans {
        let steps: Vec<&str> = expected.iter().map(|names| names.split(' ').next().unwrap()).collect();
        let (legal, end) = walk(&coordination, open(&coordination, regime), &steps);
        assert_eq!(legal, expected, "{regime:?}");
        assert_eq!(end.stand(), Stand::Stop(StopReason::EvaluatorDone), "{regime:?}");
        let branched = matches!(regime, Regime::Ambiguous | Regime::Contradictory);
        assert_eq!(end.document().branches.len(), if branched { 2 } else { 0 }, "{regime:?}");
        assert_eq!(end.result(), if branched { b"thus".to_vec() } else { b"so".to_vec() }, "{regime:?}");
    }
}

#[test]
fn branches_do_not_see_one_another() {
    let coordination = coordination("skips = false\nalone = false\nbranches = 3", &CELLS);
    let start = ["planner", "memory", "web_search"];
    // In each branch one solver; that of the second fails, as does the other.
    let branches =
        ["solver_cot", "verifier", "FAIL:solver_cot", "FAIL:solver_brief", "solver_brief", "FAIL:verifier"];
    let (legal, mid) =
        walk(&coordination, open(&coordination, Regime::Ambiguous), &[&start[..], &branches[..5]].concat());
    assert_eq!(legal[3], "solver_cot solver_brief");
    assert_eq!(legal[4], "verifier", "one solver is enough");
    assert_eq!(legal[5], "solver_cot solver_brief", "the second branch begins as the first did");
    assert_eq!(mid.document().branches.len(), 0, "branches do not see one another");
    assert!(decision(&mid).name.ends_with("branch=3"));
    let (_, end) = walk(&coordination, mid, &branches[5..]);
    let payload = String::from_utf8(end.payload()).unwrap();
    let results =
        r#""branches":[{"draft_answer":"so","verification":{"status":"supported"}},{"draft_answer":"so"}]"#;
    assert!(
        payload.contains(results)
            && !payload.contains(r#""draft_answer":"so","verification":{"status":"supported"},"d"#),
        "{payload}"
    );
    assert_eq!(names(&coordination, &decision(&end).legal), "synthesiser evaluator");
    assert!((end.beliefs().correctness - 0.55).abs() < 1e-12, "those of the supported branch");
    assert_eq!(end.result(), b"so", "without a merged answer, the best branch's");
}

#[test]
fn a_solver_may_act_alone() {
    let cells = ["planner", "memory", "solver_a", "solver_b", "verifier", "evaluator"];
    let coordination = coordination("", &cells);
    let (legal, end) = walk(&coordination, open(&coordination, Regime::Straightforward), &["only:solver_b"]);
    assert_eq!(legal, ["planner only:solver_a only:solver_b"]);
    assert_eq!(end.stand(), Stand::Stop(StopReason::NothingLegal));
    assert_eq!((end.result(), end.missing()), (b"so".to_vec(), vec![]));
    // What is required comes behind it, with what that needs.
    let (legal, end) =
        walk(&coordination, open(&coordination, Regime::HighRisk), &["only:solver_b", "memory", "verifier"]);
    assert_eq!(legal[1..], ["memory", "verifier"]);
    assert_eq!((end.stand(), end.missing()), (Stand::Stop(StopReason::NothingLegal), vec![]));
    // Also where the solver fails.
    let (legal, _) = walk(
        &coordination,
        open(&coordination, Regime::HighRisk),
        &["FAIL:only:solver_b", "planner", "solver_a", "memory"],
    );
    assert_eq!(legal[1..], ["planner memory", "memory solver_a", "memory"]);
}

#[test]
fn what_is_required_is_not_skipped() {
    let coordination = coordination("alone = false\nsteps_max = 5", &CELLS);
    let progress = open(&coordination, Regime::HighRisk);
    let masked = |progress: &Progress| {
        let name = |(action, why): &(ActionId, &str)| format!("{} {why}", coordination.column_name(*action));
        decision(progress).masked.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(masked(&progress), "skip:planner required", "nobody else sets the subproblem");
    let (_, progress) = walk(&coordination, progress, &["planner"]);
    // Four steps are left; memory (or a search), a solver and the verifier are needed.
    assert_eq!(masked(&progress), "");
    let (_, progress) = walk(&coordination, progress, &["skip:memory"]);
    assert_eq!(names(&coordination, &decision(&progress).legal), "web_search solver_cot solver_brief");
    assert_eq!(
        masked(&progress),
        "skip:web_search reserved, skip:solver_cot reserved, skip:solver_brief reserved"
    );
    let (legal, end) = walk(&coordination, progress, &["solver_cot", "web_search", "verifier"]);
    assert_eq!(legal[1..], ["web_search", "verifier"]);
    assert_eq!((end.stand(), end.missing()), (Stand::Stop(StopReason::MaxSteps), vec![]));
}

#[test]
fn an_evaluator_does_not_end_what_is_not_verified() {
    let coordination = coordination("skips = false\nalone = false", &CELLS);
    let steps = ["planner", "memory", "solver_cot", "evaluator"];
    let (_, mid) = walk(&coordination, open(&coordination, Regime::HighRisk), &steps);
    let (_, end) = walk(&coordination, mid, &["verifier"]);
    assert_eq!(end.stand(), Stand::Stop(StopReason::EvaluatorDone), "it ends as soon as that is done");
    let (_, end) = walk(&coordination, open(&coordination, Regime::EvidenceHeavy), &steps);
    assert_eq!(end.stand(), Stand::Stop(StopReason::EvaluatorDone));
}

#[test]
fn a_failed_cell_was_taken() {
    let coordination = coordination("skips = false\nalone = false", &CELLS);
    let fails = ["FAIL:planner"];
    let (_, end) = walk(&coordination, open(&coordination, Regime::Straightforward), &fails);
    assert_eq!((end.stand(), end.steps()), (Stand::Stop(StopReason::NothingLegal), 1));
    assert_eq!(end.result(), b"");
    // A reply that is no document is a failed call with a reason.
    let mut progress = open(&coordination, Regime::EvidenceHeavy);
    let before = (progress.document().clone(), *progress.beliefs());
    for reply in [&b"no document"[..], br#"{"evidence": [{"text": 1}]}"#] {
        let action =
            decision(&progress).legal.iter().find(|a| coordination.column_name(*a) != "planner").unwrap();
        assert!(!progress.performed(action, Reply::Document(reply)).unwrap_err().to_string().is_empty());
        assert!(!decision(&progress).legal.contains(action), "it was taken");
        assert_eq!((progress.document().clone(), *progress.beliefs()), before, "and nothing else");
        if coordination.column_name(action) == "memory" {
            let planner = coordination.plan().action("planner").unwrap();
            take(&coordination, &mut progress, planner, false);
            break;
        }
    }
}

#[test]
fn signatures_along_a_path() {
    let cells = ["planner", "memory", "solver", "verifier", "evaluator"];
    let path = |settings: &str| {
        let coordination = coordination(&format!("plan = \"flat\"\n{settings}"), &cells);
        let facts = Facts::from([("class".to_owned(), Scalar::Text("physics".into()))]);
        let mut progress = Progress::open(&coordination, &facts, b"why").unwrap();
        let mut names = vec![];
        for step in ["planner", "memory", "solver", "verifier", "evaluator"] {
            let decision = decision(&progress);
            assert_eq!(decision.signature(), Signature::of_name(&decision.name));
            names.push((decision.name, decision.coarser));
            take(&coordination, &mut progress, coordination.plan().action(step).unwrap(), false);
        }
        names
    };
    let recorded = path("");
    let expected = [
        "has=goal correctness=0.1 uncertainty=0.9 contradiction=0.5 sufficiency=0.1",
        "has=goal,subproblem correctness=0.1 uncertainty=0.8 contradiction=0.5 sufficiency=0.1",
        "has=goal,subproblem,evidence correctness=0.1 uncertainty=0.8 contradiction=0.5 sufficiency=0.2",
        "has=goal,subproblem,evidence,draft correctness=0.3 uncertainty=0.6 contradiction=0.5 sufficiency=0.2",
        "has=goal,subproblem,evidence,draft,verification correctness=0.6 uncertainty=0.4 contradiction=0.3 sufficiency=0.3",
    ];
    for ((name, coarser), expected) in recorded.iter().zip(expected) {
        assert_eq!(*name, format!("regime=straightforward {expected}"));
        let has = expected.split(' ').next().unwrap();
        assert_eq!(*coarser, [has.to_owned(), format!("regime=straightforward {has}")]);
    }
    let all = path("granularity = 0\ntaken = true\ncell = true\nfacts = [\"class\", \"year\"]");
    let facts = "class=physics year=-";
    assert_eq!(all[0].0, format!("regime=straightforward has=goal taken= cell=- {facts}"));
    let planned = "regime=straightforward has=goal,subproblem";
    assert_eq!(all[1].0, format!("{planned} taken=planner cell=planner {facts}"));
    assert_eq!(all[1].1, ["has=goal,subproblem".to_owned(), format!("{planned} {facts}")]);
}

#[test]
fn columns_and_their_groups() {
    let coordination = coordination("", &["planner", "solver_a", "solver_b"]);
    assert_eq!(coordination.width(), 9);
    let all = names(&coordination, &ActionSet::all(9));
    assert_eq!(
        all,
        "planner solver_a solver_b skip:planner skip:solver_a skip:solver_b only:planner only:solver_a only:solver_b"
    );
    let identity = coordination.column_identity(ActionId(4));
    let version = identity.strip_prefix("skip:solver_a#").unwrap();
    assert!(version.len() == 8 && version.bytes().all(|b| b.is_ascii_hexdigit()));
    let groups = coordination.groups();
    let share = |a: usize, b: usize| groups[a].iter().filter(|g| groups[b].contains(g)).count();
    assert_eq!((share(1, 2), share(1, 0), share(1, 4), share(1, 1)), (1, 0, 0, 2));
}

#[test]
fn a_task_that_cannot_be_begun_is_refused() {
    let coordination = coordination("", &CELLS);
    let fact = Facts::from([("novelty_level".to_owned(), Scalar::Text("high".into()))]);
    for (facts, payload, said) in [
        (Facts::new(), &b"\xff"[..], "UTF-8"),
        (Facts::new(), br#"{"schema":"relevo.handoff/v1","features":{"novelty_level":2}}"#, "[0, 1]"),
        (fact, b"why", "novelty_level"),
    ] {
        let message = Progress::open(&coordination, &facts, payload).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
    let facts = Facts::from([("novelty_level".to_owned(), Scalar::Text("0.9".into()))]);
    assert_eq!(Progress::open(&coordination, &facts, b"why").unwrap().regime(), Regime::Exploratory);
}

proptest! {
    // Faults in what is required behind branches are rare among random walks: one in some thousands.
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever is chosen among what is admissible: what is required has acted in the end, unless a cell failed.
    #[test]
    fn required_roles_act(
        choices in proptest::collection::vec(0usize..64, 40),
        regime in 0usize..6,
        steps_max in 4u32..16,
        alone: bool,
        flat: bool,
    ) {
        let regime = Regime::ALL[regime];
        let plan = if flat { "plan = \"flat\"" } else { "" };
        let settings = format!("{plan}\nsteps_max = {steps_max}\nalone = {alone}\nrequired.contradictory = [\"critic\"]\n\
                                required.ambiguous = [\"verifier\"]\nrequired.exploratory = [\"evaluator\"]");
        let coordination = coordination(&settings, &CELLS);
        let mut progress = open(&coordination, regime);
        for choice in choices {
            let Stand::Decide(Decision { legal, masked, .. }) = progress.stand() else { break };
            prop_assert!(masked.iter().all(|(action, _)| !legal.contains(*action)));
            let action = legal.iter().nth(choice % legal.len()).unwrap();
            take(&coordination, &mut progress, action, false);
        }
        prop_assert!(matches!(progress.stand(), Stand::Stop(_)), "columns and steps are limited");
        prop_assert_eq!(progress.missing(), vec![]);
        prop_assert!(progress.steps() <= steps_max);
    }

    /// Cells that fail and replies of any bytes lead to an end as well.
    #[test]
    fn every_task_ends(choices in proptest::collection::vec((0usize..64, any::<bool>()), 40), regime in 0usize..6) {
        let coordination = coordination("", &CELLS);
        let mut progress = open(&coordination, Regime::ALL[regime]);
        for (choice, fails) in choices {
            let Stand::Decide(Decision { legal, .. }) = progress.stand() else { break };
            let action = legal.iter().nth(choice % legal.len()).unwrap();
            take(&coordination, &mut progress, action, fails);
        }
        prop_assert!(matches!(progress.stand(), Stand::Stop(_)));
    }
}

#[test]
#[ignore = "measures, asserts nothing"]
fn cost_of_a_step() {
    let coordination = coordination("", &CELLS);
    let tasks = 20_000;
    let begun = std::time::Instant::now();
    let mut steps = 0;
    for _ in 0..tasks {
        let mut progress = open(&coordination, Regime::HighRisk);
        while let Stand::Decide(decision) = progress.stand() {
            let payload = progress.payload();
            let document = Document::parse(&payload).unwrap();
            std::hint::black_box(&document);
            take(&coordination, &mut progress, decision.legal.first().unwrap(), false);
            steps += 1;
        }
    }
    println!("{:?} a step", begun.elapsed() / steps);
    let text = br#"{"features":{"verification_need":0.9},"goal":"why","subproblem":"how","evidence":[{"source":"s","text":"t"}],"draft_answer":"so"}"#;
    let begun = std::time::Instant::now();
    for _ in 0..100_000 {
        std::hint::black_box(Document::parse(std::hint::black_box(text)).unwrap().write());
    }
    println!("{:?} to parse and write", begun.elapsed() / 100_000);
}
