//! Guards as their driver meets them: what stops, asks, masks and hands off, and that no order of events gets around it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use relevo::{
    agent::FailureKind,
    guard::{
        BreakerSpec, Budget, Cost, DeclaredCost, Guard, GuardSpec, OnExceed, Permit, Repetition, Resource,
        Scope, StopReason, TaskGuard, TeamGuard, Verdict, Why,
    },
    team::TeamSpec,
};
use relevo_core::ids::AgentId;

const A: AgentId = AgentId(0);
const B: AgentId = AgentId(1);
const C: AgentId = AgentId(2);
const FAILED: Result<(), FailureKind> = Err(FailureKind::Crash);

fn begin(spec: GuardSpec) -> (TeamGuard, TaskGuard) {
    let mut team = TeamGuard::new(spec, 0);
    let task = TaskGuard::new(&mut team, 0);
    (team, task)
}

fn budget(tokens: u64, on_exceed: OnExceed<AgentId>) -> Option<Budget<AgentId>> {
    Some(Budget { tokens: Some(tokens), money: None, seconds: None, on_exceed })
}

fn tokens(tokens: u64) -> Cost {
    Cost { tokens, ..Cost::default() }
}

fn declared(costs: &[(AgentId, u64)]) -> BTreeMap<AgentId, DeclaredCost> {
    let declare = |n| DeclaredCost { tokens: Some(n), ..DeclaredCost::default() };
    costs.iter().map(|(agent, n)| (*agent, declare(*n))).collect()
}

fn permit(verdict: Verdict) -> Permit {
    match verdict {
        Verdict::Go(permit) => permit,
        other => panic!("not let through: {other:?}"),
    }
}

fn call(
    team: &mut TeamGuard,
    task: &mut TaskGuard,
    agent: AgentId,
    cost: Cost,
    ended: Result<(), FailureKind>,
) {
    let permit = permit(task.before_call(team, agent, false, 0));
    task.after_call(team, permit, cost, ended);
}

#[test]
fn without_limits_everything_goes() {
    let (mut team, mut task) = begin(GuardSpec::default());
    for i in 0..1000 {
        assert_eq!(task.on_handoff(&team, A, B, 7), None);
        call(&mut team, &mut task, B, Cost { tokens: 1 << 40, money: 1e6, ms: 1 << 40 }, FAILED);
        assert_eq!(task.before_decision(&team, B, &[A, B, C], i).stop_reason(), None);
    }
}

#[test]
fn words_are_stable_and_are_read_back() {
    let words = StopReason::ALL.map(StopReason::word);
    assert_eq!(
        words.join(" "),
        "finished ended max-handoffs max-turns no-successor repetition budget-tokens budget-money budget-time \
         terminal-error handed-off denied killed evaluator-done max-steps nothing-legal guarded-allow guarded-breaker guarded-budget"
    );
    for reason in StopReason::ALL {
        assert_eq!(reason.word().parse(), Ok(reason));
    }
    assert!("Finished".parse::<StopReason>().is_err());
}

#[test]
fn counts_of_turns_and_handoffs_are_exact_and_a_stop_is_for_ever() {
    let spec = GuardSpec { max_turns: Some(3), max_handoffs: Some(2), ..GuardSpec::default() };
    let (mut team, mut task) = begin(spec.clone());
    for _ in 0..3 {
        call(&mut team, &mut task, A, Cost::default(), Ok(()));
    }
    let max_turns = Verdict::Stop(StopReason::MaxTurns);
    assert_eq!(task.before_call(&mut team, A, false, 0), max_turns);
    assert_eq!((task.before_call(&mut team, B, true, 9), task.turns()), (max_turns, 3));
    assert_eq!(task.on_handoff(&team, A, B, 0), Some(StopReason::MaxTurns));

    let (team, mut task) = begin(spec);
    let ends: Vec<_> = (0..3).map(|i| task.on_handoff(&team, A, B, i)).collect();
    assert_eq!(ends, [None, None, Some(StopReason::MaxHandoffs)]);
}

#[test]
fn the_same_thing_to_the_same_agent_too_often_is_a_circle() {
    let spec = GuardSpec { repetition: Some(Repetition { window: 4, times: 2 }), ..GuardSpec::default() };
    // Handoffs (to, digest), and the one at which the task stops.
    for (handoffs, stops) in [
        (vec![(A, 1), (B, 1), (A, 2), (B, 2)], None),
        (vec![(A, 1), (B, 2), (A, 1)], Some(2)),
        (vec![(A, 1), (B, 2), (B, 3), (A, 1)], Some(3)),
        // It has left the window.
        (vec![(A, 1), (B, 2), (B, 3), (B, 4), (A, 1)], None),
    ] {
        let (team, mut task) = begin(spec.clone());
        let ends = handoffs.iter().map(|(to, digest)| task.on_handoff(&team, C, *to, *digest));
        assert_eq!(ends.collect::<Vec<_>>().iter().position(Option::is_some), stops, "{handoffs:?}");
        assert_eq!(task.stopped(), stops.map(|_| StopReason::Repetition));
    }
}

#[test]
fn what_the_list_does_not_allow_is_masked_and_stopped() {
    let allow = BTreeMap::from([(A, BTreeSet::from([B]))]);
    let (team, mut task) = begin(GuardSpec { allow, ..GuardSpec::default() });
    let masks = task.before_decision(&team, A, &[A, B, C], 0);
    assert_eq!(masks.iter().collect::<Vec<_>>(), [(A, Guard::Allow), (C, Guard::Allow)]);
    assert_eq!((masks.of(B), masks.of(C)), (None, Some(Guard::Allow)));
    assert_eq!(masks.stop_reason(), Some(StopReason::Guarded(Guard::Allow)));
    // Nobody wrote a list for B.
    assert_eq!(task.before_decision(&team, B, &[A, B, C], 0).iter().count(), 0);
    assert_eq!(task.on_handoff(&team, A, B, 0), None);
    assert_eq!(task.on_handoff(&team, A, C, 0), Some(StopReason::Guarded(Guard::Allow)));
}

#[test]
fn a_terminal_failure_ends_the_task_by_its_kind() {
    let halt_on = BTreeSet::from([FailureKind::Auth, FailureKind::Quota]);
    for (kind, ends) in [
        (FailureKind::Auth, Some(StopReason::TerminalError)),
        (FailureKind::Quota, Some(StopReason::TerminalError)),
        (FailureKind::Crash, None),
        (FailureKind::RateLimit, None),
    ] {
        let (mut team, mut task) = begin(GuardSpec { halt_on: halt_on.clone(), ..GuardSpec::default() });
        call(&mut team, &mut task, A, Cost::default(), Err(kind));
        assert_eq!(task.stopped(), ends, "{kind:?}");
        // Another task is free to try.
        assert_eq!(TaskGuard::new(&mut team, 0).stopped(), None);
    }
}

#[test]
fn a_breaker_opens_waits_tries_once_and_closes() {
    let breaker = Some(BreakerSpec { failures: 2, cooldown: 3 });
    let (mut team, mut task) = begin(GuardSpec { breaker, ..GuardSpec::default() });
    let other = |team: &mut TeamGuard, task: &mut TaskGuard| call(team, task, B, Cost::default(), Ok(()));
    for ended in [FAILED, Ok(()), FAILED, Err(FailureKind::Cancelled), FAILED] {
        assert!(team.admits(A), "a success between them, or a call called off, is no failure in a row");
        call(&mut team, &mut task, A, Cost::default(), ended);
    }
    // Open.
    let masks = task.before_decision(&team, B, &[A, B], 0);
    assert_eq!((masks.of(A), masks.of(B)), (Some(Guard::Breaker), None));
    for _ in 0..3 {
        assert!(!team.admits(A));
        other(&mut team, &mut task);
    }
    // Half-open: one trial, and nobody else while it lasts.
    let trial = permit(task.before_call(&mut team, A, false, 0));
    assert!(!team.admits(A));
    let mut second = TaskGuard::new(&mut team, 0);
    let refused = second.before_call(&mut team, A, false, 0);
    assert_eq!(refused, Verdict::Stop(StopReason::Guarded(Guard::Breaker)));
    task.after_call(&mut team, trial, Cost::default(), FAILED);
    assert!(!team.admits(A), "it failed its trial");
    (0..3).for_each(|_| other(&mut team, &mut task));
    // A trial that is called off has shown nothing: the next call is the trial.
    call(&mut team, &mut task, A, Cost::default(), Err(FailureKind::Cancelled));
    let trial = permit(task.before_call(&mut team, A, false, 0));
    assert!(!team.admits(A));
    task.after_call(&mut team, trial, Cost::default(), Ok(()));
    // Closed again: one failure does not open it.
    call(&mut team, &mut task, A, Cost::default(), FAILED);
    assert!(team.admits(A));
}

/// If nobody may be called no call passes the time, but tasks go on to begin.
#[test]
fn a_team_whose_breakers_are_all_open_comes_to_its_trials() {
    let breaker = Some(BreakerSpec { failures: 1, cooldown: 5 });
    let (mut team, mut task) = begin(GuardSpec { breaker, ..GuardSpec::default() });
    call(&mut team, &mut task, A, Cost::default(), FAILED);
    let refused = (0..).take_while(|_| {
        let mut task = TaskGuard::new(&mut team, 0);
        matches!(task.before_call(&mut team, A, false, 0), Verdict::Stop(_))
    });
    assert_eq!(refused.count(), 4);
}

#[test]
fn a_budget_stops_before_the_call_that_would_exceed_it() {
    let spec = GuardSpec {
        budget: Some(Budget {
            tokens: Some(100),
            money: Some(0.3),
            seconds: Some(10.0),
            on_exceed: OnExceed::Stop,
        }),
        ..GuardSpec::default()
    };
    let call_of = |tokens, money, ms| Cost { tokens, money, ms };
    // What two calls cost; when the third is asked for; the third is expected to cost as much as they did.
    for (cost, now, ends) in [
        (call_of(33, 0.1, 0), 0, None),
        (call_of(34, 0.0, 0), 0, Some(Resource::Tokens)),
        (call_of(0, 0.100_000_001, 0), 0, Some(Resource::Money)),
        (call_of(0, 0.0, 4_000), 6_000, None),
        (call_of(0, 0.0, 4_000), 6_001, Some(Resource::Time)),
        (call_of(50, 0.0, 0), 0, Some(Resource::Tokens)),
        (call_of(0, 0.0, 0), 10_000, Some(Resource::Time)),
    ] {
        let (mut team, mut task) = begin(spec.clone());
        call(&mut team, &mut task, A, cost, Ok(()));
        call(&mut team, &mut task, A, cost, Ok(()));
        let verdict = task.before_call(&mut team, A, false, now);
        match ends {
            None => assert_eq!(permit(verdict).estimate(), cost),
            Some(resource) => assert_eq!(verdict, Verdict::Stop(StopReason::Budget(resource)), "{cost:?}"),
        }
    }
    // Time that a person took does not count.
    let (mut team, mut task) = begin(spec);
    task.waited(60_000);
    call(&mut team, &mut task, A, Cost::default(), Ok(()));
    let _ = permit(task.before_call(&mut team, A, false, 69_999));
}

#[test]
fn an_estimate_is_what_is_declared_or_the_median_so_far() {
    let spec = GuardSpec { costs: declared(&[(B, 500)]), ..GuardSpec::default() };
    let (mut team, mut task) = begin(spec);
    assert_eq!((team.estimate(A), team.estimate(B)), (Cost::default(), tokens(500)));
    for spent in [10, 90, 20, 80, 30] {
        let cost = Cost { tokens: spent, money: spent as f64 / 100.0, ms: 7 };
        call(&mut team, &mut task, A, cost, Ok(()));
        call(&mut team, &mut task, B, cost, Ok(()));
    }
    assert_eq!(team.estimate(A), Cost { tokens: 30, money: 0.3, ms: 7 });
    assert_eq!(team.estimate(B), Cost { tokens: 500, money: 0.3, ms: 7 });
    // What was called off does not say what a whole call costs.
    (0..9).for_each(|_| call(&mut team, &mut task, A, tokens(1), Err(FailureKind::Cancelled)));
    assert_eq!(team.estimate(A).tokens, 30);
    // It forgets: what was long ago no longer counts.
    (0..31).for_each(|_| call(&mut team, &mut task, A, tokens(1), FAILED));
    assert_eq!(team.estimate(A), tokens(1));
}

#[test]
fn degraded_to_what_is_left_only_cheap_agents_are_chosen() {
    let (mut team, mut task) = begin(GuardSpec {
        budget: budget(100, OnExceed::Degrade),
        costs: declared(&[(A, 60), (B, 20), (C, 0)]),
        ..GuardSpec::default()
    });
    let masked = |team: &TeamGuard, task: &TaskGuard| -> Vec<AgentId> {
        task.before_decision(team, A, &[A, B, C], 0).iter().map(|(agent, _)| agent).collect()
    };
    assert_eq!(masked(&team, &task), []);
    call(&mut team, &mut task, A, tokens(60), Ok(()));
    assert_eq!(masked(&team, &task), [A]);
    call(&mut team, &mut task, B, tokens(25), Ok(()));
    assert_eq!(masked(&team, &task), [A, B]);
    call(&mut team, &mut task, C, tokens(15), Ok(()));
    let masks = task.before_decision(&team, A, &[A, B, C], 0);
    assert_eq!(masks.stop_reason(), Some(StopReason::Guarded(Guard::Budget)));
    assert_eq!(masks.iter().count(), 3, "nothing is left, not even for what costs nothing");
    assert_eq!(task.before_call(&mut team, C, false, 0), Verdict::Stop(StopReason::Budget(Resource::Tokens)));
}

#[test]
fn a_question_is_answered_once_for_one_call() {
    let ask = OnExceed::Ask;
    let spec = GuardSpec { budget: budget(100, ask), costs: declared(&[(A, 60)]), ..GuardSpec::default() };
    let (mut team, mut task) = begin(spec);
    let question = |verdict| match verdict {
        Verdict::Ask(question) => question,
        other => panic!("nobody is asked: {other:?}"),
    };
    let asked = question(task.before_call(&mut team, A, true, 0));
    assert_eq!((asked.agent, asked.estimate, asked.why), (A, tokens(60), Why::Approval));
    assert_eq!(question(task.before_call(&mut team, A, true, 0)), asked, "it is still unanswered");
    task.approve(&mut team, &asked, 0);
    let go = permit(task.before_call(&mut team, A, true, 0));
    task.after_call(&mut team, go, tokens(60), Ok(()));
    // The next call needs its own approval, and the budget comes first.
    let asked = question(task.before_call(&mut team, A, true, 0));
    assert_eq!(asked.why, Why::Budget(Scope::Task, Resource::Tokens));
    task.approve(&mut team, &asked, 0);
    let approval = question(task.before_call(&mut team, A, true, 0));
    assert_eq!(approval.why, Why::Approval);
    assert_eq!(task.deny(), StopReason::Denied);
    task.approve(&mut team, &approval, 0);
    assert_eq!(task.before_call(&mut team, A, true, 0), Verdict::Stop(StopReason::Denied));
}

#[test]
fn who_takes_over_has_one_call_and_no_more() {
    let hand_off = OnExceed::HandOff(C);
    let spec = GuardSpec {
        budget: budget(100, hand_off),
        costs: declared(&[(A, 60), (C, 1000)]),
        ..GuardSpec::default()
    };
    let (mut team, mut task) = begin(spec);
    call(&mut team, &mut task, A, tokens(60), Ok(()));
    assert_eq!(task.before_call(&mut team, A, false, 0), Verdict::HandOff(C));
    call(&mut team, &mut task, C, tokens(1), Ok(()));
    for agent in [C, A, B] {
        let mut task = task.clone();
        let verdict = task.before_call(&mut team.clone(), agent, false, 0);
        assert!(matches!(verdict, Verdict::Go(_)) == (agent == B), "{agent:?}: {verdict:?}");
        assert!(!matches!(verdict, Verdict::HandOff(_)));
    }
}

#[test]
fn the_budget_of_the_run_counts_calls_under_way_and_ends_it_for_all() {
    let session_budget = budget(100, OnExceed::Stop);
    let (mut team, mut first) =
        begin(GuardSpec { session_budget, costs: declared(&[(A, 60)]), ..GuardSpec::default() });
    let under_way = permit(first.before_call(&mut team, A, false, 0));
    let mut second = TaskGuard::new(&mut team, 0);
    let stop = Verdict::Stop(StopReason::Budget(Resource::Tokens));
    assert_eq!(second.before_call(&mut team, A, false, 0), stop);
    assert_eq!(team.stopped(), Some(StopReason::Budget(Resource::Tokens)));
    first.after_call(&mut team, under_way, tokens(10), Ok(()));
    assert_eq!(first.before_call(&mut team, B, false, 0), stop);

    // Taken up later, what an earlier process spent still counts.
    let mut again = TeamGuard::new(team.spec().clone(), 0);
    again.recall(A, tokens(50), Ok(()));
    let mut task = TaskGuard::new(&mut again, 0);
    assert_eq!(task.before_call(&mut again, A, false, 0), stop);
}

/// What an earlier process did for a task counts as if it had been done here.
#[test]
fn a_task_that_is_taken_up_is_where_it_was() {
    let spec = GuardSpec {
        max_turns: Some(3),
        budget: Some(Budget {
            tokens: Some(100),
            money: None,
            seconds: Some(10.0),
            on_exceed: OnExceed::Stop,
        }),
        breaker: Some(BreakerSpec { failures: 3, cooldown: 1 }),
        halt_on: BTreeSet::from([FailureKind::Quota]),
        ..GuardSpec::default()
    };
    let call_of = |tokens, ms| Cost { tokens, money: 0.0, ms };
    for (calls, agent, stops) in [
        (vec![(A, call_of(30, 100), Ok(())); 2], A, None),
        (vec![(A, call_of(30, 100), Ok(())); 3], B, Some(StopReason::MaxTurns)),
        (vec![(A, call_of(40, 100), Ok(())); 2], A, Some(StopReason::Budget(Resource::Tokens))),
        (vec![(A, call_of(1, 4_001), Ok(())); 2], A, Some(StopReason::Budget(Resource::Time))),
        (vec![(A, call_of(1, 1), Err(FailureKind::Quota))], B, Some(StopReason::TerminalError)),
        (vec![(A, call_of(1, 1), FAILED); 2], A, None),
    ] {
        let (mut team, mut task) = begin(spec.clone());
        let (mut again, mut taken_up) = begin(spec.clone());
        let mut now = 0;
        for (agent, cost, ended) in &calls {
            let permit = self::permit(task.before_call(&mut team, *agent, false, now));
            now += cost.ms;
            task.after_call(&mut team, permit, *cost, *ended);
            // Played again from the ledger, where no time passes.
            let permit = self::permit(taken_up.before_call(&mut again, *agent, false, 0));
            taken_up.after_call(&mut again, permit, *cost, *ended);
            taken_up.lasted(cost.ms);
        }
        let verdict = task.before_call(&mut team, agent, false, now);
        assert_eq!(taken_up.before_call(&mut again, agent, false, 0), verdict, "{calls:?}");
        assert_eq!(task.stopped(), stops, "{calls:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Begin { task: usize },
    Call { task: usize, agent: u32, cost: u64, ended: Result<(), FailureKind> },
    End { task: usize },
}

const TASKS: usize = 3;
const AGENTS: u32 = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ended = prop_oneof![3 => Just(Ok(())), 2 => Just(FAILED), 1 => Just(Err(FailureKind::Cancelled))];
    let call = (0..TASKS, 0..AGENTS, 0..120u64, ended).prop_map(|(task, agent, cost, ended)| Step::Call {
        task,
        agent,
        cost,
        ended,
    });
    prop::collection::vec(
        prop_oneof![
            8 => call,
            8 => (0..TASKS).prop_map(|task| Step::End { task }),
            1 => (0..TASKS).prop_map(|task| Step::Begin { task }),
        ],
        1..120,
    )
}

fn follows() -> impl Strategy<Value = OnExceed<AgentId>> {
    prop_oneof![Just(OnExceed::Stop), Just(OnExceed::Degrade)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Calls of several tasks, begun and ended in any order: what is spent goes beyond a budget by no more than calls
    /// under way at once cost beyond their estimates; a masked choice is not let through; and whatever is replayed
    /// comes out the same.
    #[test]
    fn no_order_of_events_gets_around_the_guards(
        steps in steps(),
        limit in 50..400u64,
        session_limit in 50..900u64,
        follows in follows(),
        session_follows in follows(),
    ) {
        let spec = GuardSpec {
            budget: budget(limit, follows),
            session_budget: budget(session_limit, session_follows),
            breaker: Some(BreakerSpec { failures: 2, cooldown: 4 }),
            allow: BTreeMap::from([(A, BTreeSet::from([B, C]))]),
            costs: declared(&[(A, 40), (B, 0)]),
            ..GuardSpec::default()
        };
        let said = play(&spec, &steps);
        prop_assert_eq!(&said, &play(&spec, &steps));
    }

    /// A question about the budget is asked at most once for a call, and to approve it lets that call through.
    #[test]
    fn an_approved_call_is_let_through(
        spent in prop::collection::vec(0..300u64, 0..6),
        limit in 1..400u64,
        estimate in 0..1000u64,
        now in 0..20_000u64,
    ) {
        let all = Some(Budget { tokens: Some(limit), money: Some(1.0), seconds: Some(9.0), on_exceed: OnExceed::Ask });
        let spec = GuardSpec { budget: all.clone(), session_budget: all, costs: declared(&[(A, estimate)]), ..GuardSpec::default() };
        let (mut team, mut task) = begin(spec);
        let mut asked = vec![];
        for cost in spent {
            loop {
                match task.before_call(&mut team, A, true, now) {
                    Verdict::Go(permit) => {
                        task.after_call(&mut team, permit, tokens(cost), Ok(()));
                        break;
                    }
                    Verdict::Ask(question) => {
                        prop_assert!(!asked.contains(&question.why), "{:?} was asked twice", question.why);
                        asked.push(question.why);
                        task.approve(&mut team, &question, now);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            asked.clear();
        }
    }
}

/// One task on its way.
struct Played {
    guard: TaskGuard,
    spent: u64,
    overrun: u64,
    /// The call under way: permit, agent, what it will cost, how it will end.
    under_way: Option<(Permit, u64, Result<(), FailureKind>)>,
}

fn play(spec: &GuardSpec, steps: &[Step]) -> Vec<String> {
    let limit = spec.budget.as_ref().and_then(|b| b.tokens).unwrap();
    let session_limit = spec.session_budget.as_ref().and_then(|b| b.tokens).unwrap();
    let mut team = TeamGuard::new(spec.clone(), 0);
    let open = |team: &mut TeamGuard| Played {
        guard: TaskGuard::new(team, 0),
        spent: 0,
        overrun: 0,
        under_way: None,
    };
    let mut tasks: Vec<Played> = (0..TASKS).map(|_| open(&mut team)).collect();
    let (mut spent, mut overruns) = (0, vec![]);
    let mut said = vec![];
    for step in steps {
        match *step {
            Step::Begin { task } if tasks[task].under_way.is_none() => tasks[task] = open(&mut team),
            Step::Call { task, agent, cost, ended } if tasks[task].under_way.is_none() => {
                let played = &mut tasks[task];
                let agent = AgentId(agent);
                let masks = played.guard.before_decision(&team, A, &[A, B, C, AgentId(3)], 0);
                let allowed = played.guard.on_handoff(&team, A, agent, 0).is_none();
                let verdict = played.guard.before_call(&mut team, agent, false, 0);
                said.push(format!("{masks:?} {verdict:?}"));
                if let Verdict::Go(permit) = verdict {
                    assert!(allowed && masks.of(agent).is_none(), "{agent:?} is masked and called");
                    assert!(played.spent + permit.estimate().tokens <= limit);
                    played.under_way = Some((permit, cost, ended));
                }
            }
            Step::End { task } => {
                let played = &mut tasks[task];
                if let Some((permit, cost, ended)) = played.under_way.take() {
                    let over = cost.saturating_sub(permit.estimate().tokens);
                    played.spent += cost;
                    played.overrun = played.overrun.max(over);
                    spent += cost;
                    overruns.push(over);
                    played.guard.after_call(&mut team, permit, tokens(cost), ended);
                    assert!(played.spent <= limit + played.overrun, "one call's overrun at most");
                }
            }
            _ => {}
        }
        overruns.sort();
        let most: u64 = overruns.iter().rev().take(TASKS).sum();
        assert!(spent <= session_limit + most, "the overruns of the calls under way at most");
    }
    said
}

/// However long a run, and however many its failures, the guard of the team stays as large as the team.
#[test]
fn nothing_grows_without_limit() {
    let spec = GuardSpec {
        repetition: Some(Repetition { window: 8, times: 8 }),
        breaker: Some(BreakerSpec { failures: 1000, cooldown: 1 }),
        session_budget: budget(u64::MAX, OnExceed::Stop),
        budget: budget(u64::MAX, OnExceed::Stop),
        ..GuardSpec::default()
    };
    let (mut team, mut task) = begin(spec);
    let mut size = 0;
    for i in 0..10_000u64 {
        assert_eq!(task.on_handoff(&team, A, AgentId((i % 4) as u32), i), None);
        call(
            &mut team,
            &mut task,
            AgentId((i % 4) as u32),
            tokens(1),
            if i % 3 == 0 { FAILED } else { Ok(()) },
        );
        if i == 200 {
            size = format!("{team:?}{task:?}").len();
        }
    }
    let grown = format!("{team:?}{task:?}").len();
    assert!(grown < size + 100, "{size} bytes have become {grown}");
}

#[test]
fn the_section_of_a_team_file_becomes_the_guards() {
    let text = r#"schema = "relevo.team/v1"
name = "pair"
start = "a"
[simulate]
environment = "maths@1"
[run]
max_handoffs = 9
[guards]
max_turns = 40
repetition = { window = 6, times = 3 }
budget = { tokens = 20000, seconds = 1.5, on_exceed = { hand_off = "b" } }
session_budget = { money = 2.5, on_exceed = "ask" }
allow = [{ from = "a", to = ["b"] }]
breaker = { failures = 5, cooldown = 20 }
halt_on = ["auth", "quota"]
[[agents]]
name = "a"
simulate = "editor"
observes = []
handoffs = ["finish", "b"]
cost = { tokens = 2000, money = 0.01 }
[[agents]]
name = "b"
simulate = "editor"
observes = []
handoffs = ["finish"]
approval = { when = { "payload.kind" = ["gz", "xz"] } }
"#;
    let team = TeamSpec::parse(text).unwrap();
    let spec = GuardSpec {
        max_handoffs: Some(9),
        max_turns: Some(40),
        repetition: Some(Repetition { window: 6, times: 3 }),
        budget: Some(Budget {
            tokens: Some(20_000),
            money: None,
            seconds: Some(1.5),
            on_exceed: OnExceed::HandOff(B),
        }),
        session_budget: Some(Budget {
            tokens: None,
            money: Some(2.5),
            seconds: None,
            on_exceed: OnExceed::Ask,
        }),
        allow: BTreeMap::from([(A, BTreeSet::from([B]))]),
        breaker: Some(BreakerSpec { failures: 5, cooldown: 20 }),
        halt_on: BTreeSet::from([FailureKind::Auth, FailureKind::Quota]),
        costs: BTreeMap::from([(A, DeclaredCost { tokens: Some(2000), money: Some(0.01), ms: None })]),
    };
    assert_eq!(team.guards(), spec);
    let kinds = FailureKind::ALL.map(|kind| (kind, FailureKind::of_word(kind.word())));
    assert!(kinds.iter().all(|(kind, read)| *read == Some(*kind)) && FailureKind::of_word("done").is_none());
    let approval = team.agents[1].approval.as_ref().unwrap();
    assert!(approval.is_needed(|conditions| conditions.contains_key("payload.kind")));
    assert!(!approval.is_needed(|_| false));

    // A run that has stopped for want of money is taken up with more of it; any other guard makes another run.
    let digest = |text: &str| TeamSpec::parse(text).unwrap().config_digest(&[]);
    assert_eq!(digest(text), digest(&text.replace("money = 2.5", "money = 25.0")));
    assert_ne!(digest(text), digest(&text.replace("max_turns = 40", "max_turns = 41")));

    for (from, to, said) in [
        ("max_turns = 40", "max_turns = 0", "9: max_turns is 0"),
        ("max_turns", "max_turn", "9: unknown key \"max_turn\"; did you mean \"max_turns\"?"),
        ("times = 3", "times = 7", "10: repetition looks for 7 times in a window of 6"),
        ("window = 6", "window = 6000", "10: repetition looks"),
        ("tokens = 20000", "tokens = 0", "11: tokens of the budget is out of range"),
        ("tokens = 20000", "token = 1", "11: unknown key \"token\"; did you mean \"tokens\"?"),
        ("seconds = 1.5", "seconds = inf", "11: seconds is inf"),
        ("hand_off = \"b\"", "hand_off = \"c\"", "11: hand_off: \"c\" is unknown"),
        ("\"ask\"", "\"asks\"", "12: unknown value \"asks\"; did you mean \"ask\"?"),
        ("\"ask\"", "{ hand_off = \"a\" }", "12: the budget of a whole run cannot be handed off"),
        ("money = 2.5", "money = -2.5", "12: money of the session_budget is out of range"),
        ("money = 2.5, ", "", "12: session_budget limits nothing"),
        (
            "from = \"a\", to = [\"b\"]",
            "from = \"a\", to = [\"bb\"]",
            "13: allow from \"a\": \"bb\" is unknown",
        ),
        ("to = [\"b\"] }", "to = [\"b\"] }, { from = \"a\", to = [] }", "13: two lists"),
        ("failures = 5", "failures = 0", "14: failures and cooldown"),
        ("\"quota\"]", "\"quotas\"]", "15: unknown value \"quotas\"; did you mean \"quota\"?"),
        ("money = 0.01", "money = -1.0", "21: agent \"a\": money of its cost is out of range"),
        ("{ when = {", "{ wen = {", "27: approval is true, false, or {"),
        ("payload.kind", "payload.knd", "27: an observation: \"payload.knd\" is unknown"),
    ] {
        assert!(text.contains(from), "{from}");
        let (line, message) = TeamSpec::parse(&text.replacen(from, to, 1)).unwrap_err();
        let message = format!("{}: {message}", line.unwrap());
        assert!(message.starts_with(said), "{from} -> {to}: {message}");
    }
}

/// A coordinator has a plan, which says who may act and in how many steps.
#[test]
fn the_guards_of_a_coordinated_team() {
    let team = |guards: &str| {
        TeamSpec::parse(&format!(
            "schema = \"relevo.team/v1\"\nname = \"x\"\nsimulate = {{ environment = \"x@1\" }}\n[coordinator]\n\
             [guards]\n{guards}\n[[agents]]\nname = \"solver\"\nrole = \"solver\"\nsimulate = \"solver\"\n\
             [[agents]]\nname = \"evaluator\"\nrole = \"evaluator\"\nsimulate = \"evaluator\"\n"
        ))
    };
    let spec = team("max_turns = 4").unwrap().guards();
    assert_eq!(spec, GuardSpec { max_turns: Some(4), ..GuardSpec::default() });
    let (line, message) = team("allow = [{ from = \"solver\", to = [] }]").unwrap_err();
    assert!(line == Some(6) && message.contains("the plan says who may act"), "{line:?}: {message}");
}
