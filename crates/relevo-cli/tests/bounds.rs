//! What the `[guards]` section promises, with programs that would go on for ever: why tasks end, and what they cost.

mod place;

use std::collections::BTreeMap;

use place::{Place, assert_holds};
use relevo_core::record::Record;

/// Two that hand to each other, and one who could close the matter.
const TEAM: &str = r#"schema = "relevo.team/v1"
name = "pair"
start = "ping"
[tasks]
train = "tasks.jsonl"
test = "tasks.jsonl"
judge = "text"
[run]
episodes = 6
evaluation_tasks = 1
max_handoffs = 40
[[agents]]
name = "ping"
command = ["./ping"]
observes = ["n"]
handoffs = ["pong"]
[[agents]]
name = "pong"
command = ["./pong"]
observes = ["n"]
handoffs = ["ping", "closer"]
[[agents]]
name = "closer"
command = ["./closer"]
observes = ["n"]
handoffs = ["finish"]
[guards]
"#;

const CALL: &str = r#"read -r _; echo '{"ok":true,"tokens":10,"money":0.5}'"#;

fn pair(guards: &str) -> Place {
    let place = Place::new();
    for name in ["ping", "pong", "closer"] {
        place.program(name, CALL);
    }
    // Nobody can close the matter unless a guard lets them.
    place.write("team.toml", &TEAM.replace("\"ping\", \"closer\"", "\"ping\"").replace("[guards]", guards));
    place.write("in", "x");
    place.write("tasks.jsonl", "{\"id\":\"1\",\"input\":\"in\",\"expect\":{\"text\":\"y\"}}\n");
    place
}

/// What a task, or the run, has cost.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    calls: u32,
    tokens: u64,
    money: f64,
    ms: u64,
}

/// By task, and of the whole run.
fn spent(place: &Place) -> (BTreeMap<u128, Spent>, Spent) {
    let (mut tasks, mut all) = (BTreeMap::<u128, Spent>::new(), Spent::default());
    for record in place.ledger("run") {
        if let Record::Called { handoff, usage, money, ms, .. } = record {
            for spent in [tasks.entry(handoff.episode.0).or_default(), &mut all] {
                spent.calls += 1;
                spent.tokens += usage.tokens;
                spent.money += money;
                spent.ms += ms;
            }
        }
    }
    (tasks, all)
}

/// Every guard that bounds a task: its words, why all tasks end then, and the most calls that each may make. A call uses
/// 10 tokens and half a unit of money, and 0.1 s where time is what counts.
#[test]
fn every_task_ends_within_its_bounds() {
    let expires = "approval_expires_after = 1\n";
    let slow = "sleep 0.1; ";
    let cases = [
        ("max_turns = 3", "", "max-turns", 3),
        ("repetition = { window = 6, times = 3 }", "", "repetition", 5),
        ("budget = { tokens = 35 }", "", "budget-tokens", 3),
        ("budget = { tokens = 35, on_exceed = \"degrade\" }", "", "guarded-budget", 3),
        ("budget = { tokens = 35, on_exceed = \"ask\" }", "", "denied", 3),
        ("budget = { tokens = 35, on_exceed = { hand_off = \"closer\" } }", "", "handed-off", 4),
        ("budget = { money = 1.7 }", "", "budget-money", 3),
        ("budget = { money = 1.7, on_exceed = \"degrade\" }", "", "guarded-budget", 3),
        ("budget = { money = 1.7, on_exceed = \"ask\" }", "", "denied", 3),
        ("budget = { money = 1.7, on_exceed = { hand_off = \"closer\" } }", "", "handed-off", 4),
        ("budget = { seconds = 0.25 }", slow, "budget-time", 3),
        ("budget = { seconds = 0.25, on_exceed = \"degrade\" }", slow, "guarded-budget", 3),
        ("budget = { seconds = 0.25, on_exceed = \"ask\" }", slow, "denied", 3),
        ("budget = { seconds = 0.25, on_exceed = { hand_off = \"closer\" } }", slow, "handed-off", 4),
        ("allow = [{ from = \"ping\", to = [] }]", "", "guarded-allow", 1),
        ("allow = [{ from = \"pong\", to = [\"closer\"] }]", "", "guarded-allow", 2),
    ];
    for (guard, before, why, calls_max) in cases {
        let place = pair(&format!("[guards]\n{expires}{guard}"));
        place.program("ping", &format!("{before}{CALL}"));
        place.program("pong", &format!("{before}{CALL}"));
        place.ok("learn team.toml --out run --jobs 6");
        assert_eq!(place.stops("run"), BTreeMap::from([(why.to_owned(), 6)]), "{guard}");
        let (tasks, _) = spent(&place);
        for (task, spent) in tasks {
            assert!(spent.calls <= calls_max, "{guard}: task {task} {spent:?}");
            // Within the budget, or beyond it by one call; who takes over is not counted.
            let counted = calls_max - u32::from(why == "handed-off");
            assert!(spent.tokens <= 10 * u64::from(calls_max) && spent.money <= 0.5 * f64::from(calls_max));
            assert!(before.is_empty() || spent.calls >= counted.min(2), "{guard}: task {task} {spent:?}");
        }
        // It holds while the policy is measured too.
        assert_holds(&place.read("run/report.json"), &[&format!("\"{why}\"")]);
    }
}

/// What the whole run may cost: no task begins any more, or all that is too dear is masked, or denied.
#[test]
fn a_run_ends_within_its_bounds() {
    let cases = [
        ("tokens = 205", "tokens = 10000", "", "budget-tokens"),
        ("money = 10.2", "money = 1000", "", "budget-money"),
        ("seconds = 0.5", "seconds = 1000", "sleep 0.1; ", "budget-time"),
    ];
    for (limit, more, before, why) in cases {
        for jobs in [1, 4] {
            let guard = format!("[guards]\nmax_turns = 6\nsession_budget = {{ {limit} }}");
            let place = pair(&guard);
            place.program("ping", &format!("{before}{CALL}"));
            let said = place.relevo(&format!("learn team.toml --out run --jobs {jobs}"));
            assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""), "{limit}: {}", said.stderr);
            assert_holds(&said.stderr, &["as [guards] say", why, "--resume"]);
            let (_, all) = spent(&place);
            let over = 10 * (jobs - 1);
            assert!(all.tokens <= 205 + over || !before.is_empty(), "{limit}, {jobs} jobs: {all:?}");
            assert!(place.stops("run").keys().all(|stop| stop == why || stop == "max-turns"));
            // Taken up as it is, it stops again at once; with more to spend, it goes on.
            let said = place.relevo(&format!("learn team.toml --out run --resume --jobs {jobs}"));
            if before.is_empty() {
                assert_eq!(said.code, Some(3), "{limit}: {}", said.stderr);
                assert_eq!(spent(&place).1.calls, all.calls);
            }
            let team = place.read("team.toml").replace(limit, more);
            place.write("team.toml", &team);
            place.ok(&format!("learn team.toml --out run --resume --jobs {jobs}"));
            assert_eq!(place.stops("run").values().sum::<usize>(), 6);
        }
    }
    for (follows, why) in [("degrade", "guarded-budget"), ("ask", "denied")] {
        let guard = format!(
            "[guards]\napproval_expires_after = 1\nsession_budget = {{ tokens = 105, on_exceed = \"{follows}\" }}"
        );
        let place = pair(&guard);
        place.ok("learn team.toml --out run");
        assert!(spent(&place).1.tokens <= 105, "{follows}: {:?}", spent(&place).1);
        assert!(place.stops("run").contains_key(why), "{follows}: {:?}", place.stops("run"));
    }
}

/// One that keeps failing is left alone, which the ledger shows; and a quota that is used up ends the task.
#[test]
fn failures_have_consequences() {
    let place = pair("[guards]\nmax_turns = 4\nbreaker = { failures = 2, cooldown = 30 }");
    place.program("pong", "exit 7");
    place.ok("learn team.toml --out run");
    let stops = place.stops("run");
    assert!(stops["guarded-breaker"] >= 5, "{stops:?}");
    let masked = |record: &Record| matches!(record, Record::Masked { guard, .. } if guard == "breaker");
    assert_eq!(place.ledger("run").iter().filter(|r| masked(r)).count(), stops["guarded-breaker"]);
    let of_pong = |record: &&Record| matches!(record, Record::Called { agent, .. } if agent.0 == 1);
    assert_eq!(place.ledger("run").iter().filter(of_pong).count(), 2);

    let place = pair("[guards]\nmax_turns = 4\nhalt_on = [\"quota\"]");
    place.program("pong", r#"read -r _; echo '{"ok":false,"error":"no more","kind":"quota"}'"#);
    place.ok("learn team.toml --out run");
    assert_eq!(place.stops("run"), BTreeMap::from([("terminal-error".to_owned(), 6)]));
    assert!(spent(&place).0.values().all(|task| task.calls == 2));
}
