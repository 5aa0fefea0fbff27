//! Real programs that act, and a log of what they did: nobody is paid twice, whoever was killed, asked or stopped
//! meanwhile.

mod place;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use place::{Place, Said, assert_holds, signal};
use relevo_core::{Rng, record::Record};

const HEAD: &str = "schema = \"relevo.team/v1\"\nname = \"office\"\n[tasks]\ntrain = \"train.jsonl\"\n\
                    test = \"test.jsonl\"\njudge = \"text\"\n[run]\nepisodes = 12\nevaluation_tasks = 1\n";

/// A clerk prepares what one who pays then pays.
const HANDED_ON: [&str; 2] = [
    "name = \"clerk\"\ncommand = [\"./clerk\"]\nobserves = [\"amount\"]\nhandoffs = [\"payer\"]",
    "name = \"payer\"\ncommand = [\"./payer\"]\nobserves = [\"amount\"]\nhandoffs = [\"finish\"]",
];

/// The same as the cells of a coordinator.
const COORDINATED: [&str; 2] = [
    "name = \"clerk\"\ncommand = [\"./clerk\"]\nrole = \"planner\"",
    "name = \"payer\"\ncommand = [\"./payer\"]\nrole = \"solver\"",
];

const TEAMS: [(&str, [&str; 2], &str); 2] = [
    ("start = \"clerk\"", HANDED_ON, ""),
    ("", COORDINATED, "[coordinator]\nplan = \"flat\"\nskips = false\nalone = false\n"),
];

/// A program that acts after a while, and logs in which handoff it did.
fn acts(seconds: &str, document: &str) -> String {
    format!(
        "read -r line\nsleep {seconds}\nlabel=${{line#*'\"handoff\":\"'}}\ncase $line in\n\
         *'\"amount\":\"none\"'*) echo \"${{label%%'\"'*}}\" >> \"$0.measured\" ;;\n\
         *) echo \"${{label%%'\"'*}}\" >> \"$0.log\" ;;\nesac\necho '{document}' > out\n\
         echo '{{\"ok\":true,\"tokens\":10,\"money\":0.5}}'"
    )
}

/// A place with one of the [`TEAMS`], of which `approval` says when a person must approve of a payment.
fn office(team: usize, seconds: &str, approval: &str, guards: &str) -> Place {
    let (start, [clerk, payer], coordinator) = TEAMS[team];
    let place = Place::new();
    place.program("clerk", &acts("0", r#"{"goal":"g","subproblem":"s"}"#));
    place.program("payer", &acts(seconds, r#"{"goal":"g","subproblem":"s","draft_answer":"paid"}"#));
    let head = HEAD.replacen('\n', &format!("\n{start}\n"), 1);
    place.write(
        "team.toml",
        &format!(
            "{head}{coordinator}[guards]\n{guards}\n[[agents]]\n{clerk}\n[[agents]]\n{payer}\n{approval}\n"
        ),
    );
    let task = |amount: &str| {
        format!(
            "{{\"id\":{amount:?},\"input\":\"in\",\"facts\":{{\"amount\":{amount:?}}},\"expect\":{{\"text\":\"paid\"}}}}\n"
        )
    };
    place.write("in", "pay");
    place.write("train.jsonl", &(task("large") + &task("small")));
    place.write("test.jsonl", &task("none"));
    place
}

const LARGE: &str = "approval = { when = { amount = \"large\" } }";

fn learn(place: &Place, more: &str) -> Child {
    let mut command = place.command(&format!("learn team.toml --out run {more}"));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What is said until the end, and the exit code.
fn end(child: Child) -> Said {
    Said::new(child.wait_with_output().unwrap())
}

fn closed(place: &Place) -> usize {
    place.ledger("run").iter().filter(|record| matches!(record, Record::Closed { .. })).count()
}

fn paused(place: &Place) -> usize {
    place.ledger("run").iter().filter(|record| matches!(record, Record::Paused { .. })).count()
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} never comes");
        thread::sleep(Duration::from_millis(10));
    }
}

fn questions(place: &Place) -> Vec<String> {
    let names = if place.path("run/approvals").exists() { place.files("run/approvals") } else { vec![] };
    names.iter().filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect()
}

// ---- people are asked ----

/// Every answer there is, with a kill between the questions and the answers. The run goes on meanwhile.
#[test]
fn a_question_outlasts_the_process_that_asked() {
    for team in 0..TEAMS.len() {
        let place = office(team, "0", LARGE, "");
        let mut child = learn(&place, "");
        until("all that can be done", || paused(&place) + closed(&place) == 12);
        let asked = questions(&place);
        let small = closed(&place);
        assert!(asked.len() >= 3 && small >= 2, "{asked:?}");
        assert_eq!((asked.len(), lines(&place.path("payer.log")).len()), (12 - small, small));
        let listed = place.ok("approvals list run");
        assert_holds(&listed, &["payer", "large", "amount=large", "approval", &asked[0]]);
        let files = || asked.iter().map(|id| place.read(&format!("run/approvals/{id}.json"))).collect();
        let before: Vec<String> = files();
        signal(&child, "KILL");
        child.wait().unwrap();

        // Taken up, interrupted while it waits, and taken up again: nothing is asked twice.
        let child = learn(&place, "--resume");
        thread::sleep(Duration::from_millis(700));
        signal(&child, "INT");
        let said = end(child);
        assert_eq!(said.code, Some(130), "{}", said.stderr);
        assert_holds(
            &said.stderr,
            &[" for approval: relevo approvals list run", "stopped after", "--resume"],
        );
        let child = learn(&place, "--resume");
        thread::sleep(Duration::from_millis(300));
        assert!(questions(&place) == asked && files() == before, "it asks again");
        assert_eq!(paused(&place), asked.len());

        place.ok(&format!("approvals deny run {} --note never", asked[0]));
        place.write(&format!("run/approvals/{}.json", asked[1]), &before[1].replace("payer", "prayer"));
        for id in &asked[2..] {
            place.ok(&format!("approvals approve run {id}"));
        }
        let said = end(child);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert_eq!((closed(&place), place.stops("run")["denied"]), (12, 2));
        let paid = lines(&place.path("payer.log"));
        assert_eq!(paid.len(), 10, "{paid:?}");
        assert!((1..10).all(|i| !paid[i..].contains(&paid[i - 1])), "paid twice: {paid:?}");
        let by = |record: Record| match record {
            Record::Permitted { granted: false, by, .. } => Some(by),
            _ => None,
        };
        let mut denials: Vec<String> = place.ledger("run").into_iter().filter_map(by).collect();
        denials.sort();
        // Half written or whole, an edited question is none.
        assert!(denials[0] == "denied by ann: never" && denials[1].starts_with("its file "), "{denials:?}");
    }
}

/// What nobody answers in time is denied, and nobody is paid while the policy is measured, as nobody is asked then.
#[test]
fn without_a_yes_nobody_is_paid() {
    for team in 0..TEAMS.len() {
        let place = office(team, "0", "approval = true", "approval_expires_after = 1");
        let said = end(learn(&place, ""));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert_eq!((place.stops("run")["denied"], questions(&place).len()), (12, 12));
        for log in ["payer.log", "payer.measured"] {
            assert_eq!(lines(&place.path(log)), [""; 0], "{log}");
        }
        assert_holds(&place.read("run/report.json"), &["\"denied\""]);
    }
}

// ---- kills ----

/// Kill a run again and again, then let it end. Returns how often it was killed.
fn kill_again_and_again(place: &Place, kills: usize, jobs: usize) -> usize {
    let mut rng = Rng::stream(7, "moments of kill");
    let mut killed = 0;
    while killed < kills {
        let resume = if place.path("run/ledger.cbor").exists() { "--resume" } else { "" };
        let mut child = learn(place, &format!("{resume} --jobs {jobs}"));
        let moment = Instant::now() + Duration::from_millis(60 + u64::from(rng.below(200)));
        while Instant::now() < moment && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(2));
        }
        if child.try_wait().unwrap().is_some() {
            let said = end(child);
            assert_eq!(said.code, Some(0), "{}", said.stderr);
            break;
        }
        signal(&child, "KILL");
        child.wait().unwrap();
        killed += 1;
    }
    killed
}

/// What was recorded of those who paid: each handoff once.
fn recorded(place: &Place) -> usize {
    let paid = |record: &Record| match record {
        Record::Called { handoff, agent, .. } if agent.0 == 1 => Some(handoff.to_string()),
        _ => None,
    };
    let mut all: Vec<String> = place.ledger("run").iter().filter_map(paid).collect();
    let calls = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), calls, "a call is recorded twice");
    calls
}

/// Taken up to its end, and once more, which must change nothing.
fn finished(place: &Place, jobs: usize) {
    let said = end(learn(place, &format!("--resume --jobs {jobs}")));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let policy = place.read("run/policy.json");
    let said = end(learn(place, "--resume"));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(policy == place.read("run/policy.json"), "the policy is not what its ledger comes to");
    assert_eq!(place.files("run/outcomes"), [""; 0], "content of tasks stays");
}

#[test]
fn killed_at_any_moment_nobody_is_paid_twice() {
    const JOBS: usize = 8;
    for team in 0..TEAMS.len() {
        let place = office(team, "0.02", "", "");
        let team = place.read("team.toml").replace("episodes = 12", "episodes = 600");
        place.write("team.toml", &team);
        let kills = kill_again_and_again(&place, 30, JOBS);
        finished(&place, JOBS);
        assert_eq!((recorded(&place), closed(&place)), (600, 600));
        let made = lines(&place.path("payer.log")).len();
        // A fast machine is done before the thirtieth.
        assert!(kills >= 10 && (600..=600 + JOBS * kills).contains(&made), "{made} made, {kills} kills");
    }
}

/// Kills in the middle of questions that rest on the time, which is not the same again.
#[test]
fn a_question_about_time_outlasts_a_kill() {
    for team in 0..TEAMS.len() {
        let guards = "approval_expires_after = 1\nbudget = { seconds = 0.04, on_exceed = \"ask\" }\n\
                      breaker = { failures = 2, cooldown = 3 }";
        let place = office(team, "0.05", "", guards);
        let team = place.read("team.toml").replace("episodes = 12", "episodes = 40");
        let clerk = place.read("clerk");
        place.program("clerk", &clerk.replace("sleep 0", "sleep 0.05"));
        place.write("team.toml", &team);
        kill_again_and_again(&place, 12, 4);
        assert!(paused(&place) > 0);
        finished(&place, 4);
        assert_eq!(place.stops("run"), BTreeMap::from([("denied".to_owned(), 40)]));
        assert_eq!(lines(&place.path("payer.log")), [""; 0]);
    }
}

// ---- stopped from outside ----

#[test]
fn a_stop_from_outside_ends_everything_at_once() {
    for team in 0..TEAMS.len() {
        let place = office(team, "0", "", "");
        let script = place.read("payer");
        let waits = "echo $$ >> \"$0.pids\"; sleep 600 & echo $! >> \"$0.pids\"; wait";
        place.program("payer", &script.replace("sleep 0", waits));
        let child = learn(&place, "--jobs 4");
        let pids = place.path("payer.pids");
        until("four calls", || lines(&pids).len() == 8);
        place.ok("stop run --reason expensive");
        let ordered = Instant::now();
        let said = end(child);
        let took = ordered.elapsed();
        assert_eq!(said.code, Some(3), "{}", said.stderr);
        // A tenth of a second where nothing else runs.
        assert!(took < Duration::from_secs(2), "it took {took:?}");
        assert_holds(&said.stderr, &["stopped by ann after 0 of 12", "expensive", "relevo stop run --lift"]);
        let alive = |pid: &String| {
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !status.is_empty() && !status.contains(") Z ")
        };
        // Killed they are; the system may take a moment to clear them away.
        until("the end of the programs", || !lines(&pids).iter().any(alive));
        let halted = |place: &Place| {
            place
                .ledger("run")
                .iter()
                .filter(|r| matches!(r, Record::Halted { by, .. } if by == "ann"))
                .count()
        };
        assert_eq!(halted(&place), 1);

        place.program("payer", &script);
        let said = end(learn(&place, "--resume"));
        assert_eq!((said.code, closed(&place)), (Some(3), 0), "{}", said.stderr);
        assert_eq!(lines(&place.path("payer.log")), [""; 0]);
        place.ok("stop run --lift");
        let said = end(learn(&place, "--resume"));
        assert_eq!((said.code, closed(&place)), (Some(0), 12), "{}", said.stderr);
        assert_eq!((recorded(&place), lines(&place.path("payer.log")).len()), (12, 12));
    }
}

/// The second Ctrl-C does not wait for calls, and leaves nothing running.
#[test]
fn two_interrupts_call_everything_off() {
    let place = office(0, "0", "", "");
    let script = place.read("payer");
    place.program("payer", &script.replace("sleep 0", "echo $$ >> \"$0.pids\"; sleep 60"));
    let child = learn(&place, "--jobs 2");
    let pids = place.path("payer.pids");
    until("two calls", || lines(&pids).len() == 2);
    signal(&child, "INT");
    thread::sleep(Duration::from_millis(300));
    signal(&child, "INT");
    let said = end(child);
    assert_eq!(said.code, Some(130), "{}", said.stderr);
    assert_holds(&said.stderr, &["stopped at once", "relevo learn team.toml --resume --out run"]);
    assert!(lines(&pids).iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "programs are left");
    place.program("payer", &script);
    finished(&place, 2);
    assert_eq!(lines(&place.path("payer.log")).len(), 12);
}
