//! The team file: every mistake is answered with its line, what is wrong, and what to try.

use std::{
    fs,
    time::{Duration, Instant},
};

use relevo::{
    coordinate::coordination::Coordination,
    team::{JudgeSpec, RewardScale, RewardSpec, TeamSpec},
};
use relevo_core::ids::{ActionId, AgentId};

const GOOD: &str = r#"schema = "relevo.team/v1"
name = "pair"
start = "writer"

[simulate]
environment = "maths@1"

[run]
episodes = 10
max_handoffs = 4

[reward]
success = 1.0
call = -0.01

[learner]
decides = "after"
discount = 1.0
values = [-1.0, 1.0]
initial = 0.0
step = { rule = "poly", exponent = 0.7 }
policy = { rule = "epsilon-greedy", epsilon = { from = 1.0, to = 0.05, over = 0.5 } }
credit = { rule = "value-passing" }

[[agents]]
name = "writer"
simulate = "editor"
observes = ["dataset"]
handoffs = ["finish", "reader"]
timeout_ms = 1000

[[agents]]
name = "reader"
simulate = "checker"
observes = ["dataset", "call.ended"]
handoffs = ["finish", { to = "writer", when = { dataset = "mathqa" } }]

[[workflows]]
name = "plain"
route = ["reader", "finish"]
"#;

const RAMP: &str = "{ from = 1.0, to = 0.05, over = 0.5 }";
const POLICY: &str = r#"{ rule = "epsilon-greedy", epsilon = { from = 1.0, to = 0.05, over = 0.5 } }"#;
const ROUTE: &str = "route = [\"reader\", \"finish\"]\n";
const SIMULATE: &str = "[simulate]\nenvironment = \"maths@1\"\n";
const TASKS: &str = "[tasks]\ntrain = \"a.jsonl\"\ntest = \"b.jsonl\"\njudge = \"text\"\n";

/// One mistake: in the good file `from` becomes `to`; the message names the first line with `at` (where that is empty,
/// the line of the edit) and says `said`, all of it.
struct Mistake {
    from: &'static str,
    to: &'static str,
    at: &'static str,
    said: &'static [&'static str],
}

const fn wrong(
    from: &'static str,
    to: &'static str,
    at: &'static str,
    said: &'static [&'static str],
) -> Mistake {
    Mistake { from, to, at, said }
}

/// The text with the mistake, and the line that is to be named.
fn edited(good: &str, Mistake { from, to, at, .. }: &Mistake) -> (String, usize) {
    let offset = good.find(from).unwrap_or_else(|| panic!("the good file has no {from:?}"));
    let text = good.replacen(from, to, 1);
    let offset = if at.is_empty() { offset } else { text.find(at).unwrap() };
    let line = 1 + text[..offset].matches('\n').count();
    (text, line)
}

/// What [`TeamSpec::load`] says about a file, without its path.
fn load(text: impl AsRef<[u8]>) -> Result<TeamSpec, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("team.toml");
    fs::write(&path, text).unwrap();
    TeamSpec::load(&path).map_err(|e| {
        let message = e.to_string();
        let rest = message.strip_prefix(&path.display().to_string()).map(str::to_owned);
        rest.unwrap_or_else(|| panic!("the file is not named: {message}"))
    })
}

fn all_are_answered(mistakes: &[Mistake]) {
    all_are_answered_in(GOOD, mistakes);
}

fn all_are_answered_in(good: &str, mistakes: &[Mistake]) {
    for mistake in mistakes {
        let (text, line) = edited(good, mistake);
        let Mistake { from, to, said, .. } = mistake;
        let Err(message) = load(&text) else { panic!("{from:?} -> {to:?} was accepted") };
        assert!(message.starts_with(&format!(":{line}: ")), "{from:?} -> {to:?}, line {line}: {message}");
        for said in *said {
            assert!(message.contains(said), "{from:?} -> {to:?} does not say {said:?}: {message}");
        }
        for foreign in ["untagged", "f64", "u64", "usize", "unknown variant", "field"] {
            assert!(!message.contains(foreign), "{from:?} -> {to:?} speaks of this program: {message}");
        }
    }
}

#[test]
fn the_good_file_and_the_examples_load() {
    let team = load(GOOD).unwrap();
    assert_eq!((team.name.as_str(), team.agents.len(), team.run.evaluation_tasks), ("pair", 2, 500));
    for example in ["desk", "maths", "unpack"] {
        let path = format!("{}/../../examples/{example}/team.toml", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(TeamSpec::load(path.as_ref()).unwrap().name, example);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/maths/adaptable.toml");
    let team = TeamSpec::load(path.as_ref()).unwrap();
    assert_eq!(team.agents.iter().map(|agent| agent.operations.len()).collect::<Vec<_>>(), [0, 2, 3, 0]);
}

#[test]
fn keys_and_kinds() {
    all_are_answered(&[
        wrong("max_handoffs", "max_handofs", "", &["unknown key", "did you mean \"max_handoffs\"?"]),
        wrong("timeout_ms", "timeout", "", &["unknown key", "did you mean \"timeout_ms\"?", "observes"]),
        wrong("name = \"reader\"", "nam = \"reader\"", "", &["did you mean \"name\"?"]),
        wrong("[learner]", "[lerner]", "", &["unknown key", "did you mean \"learner\"?"]),
        wrong("exponent", "exponet", "", &["unknown key", "did you mean \"exponent\"?"]),
        wrong("\"poly\"", "\"pol\"", "", &["unknown value", "did you mean \"poly\"?", "resc"]),
        wrong("\"epsilon-greedy\"", "\"greedy\"", "", &["unknown value", "epsilon-greedy, ucb, posterior"]),
        wrong("\"after\"", "\"afterwards\"", "", &["unknown value", "before, after"]),
        wrong("discount", "extensions = { refresh_ = 1.0 }\ndiscount", "", &["did you mean \"refresh\"?"]),
        wrong("episodes = 10", "episodes = \"ten\"", "", &["\"ten\"", "a whole number"]),
        wrong("success = 1.0", "success = \"much\"", "", &["\"much\"", "a number"]),
        wrong("timeout_ms = 1000", "timeout_ms = -5", "", &["-5", "a whole number, 0 or more"]),
        wrong("timeout_ms = 1000", "timeout_ms = 1.5", "", &["1.5", "a whole number"]),
        wrong("[-1.0, 1.0]", "[1.0]", "", &["length 1", "length 2"]),
        wrong("handoffs = [\"finish\", \"reader\"]\n", "", "[[agents]]", &["\"handoffs\" is missing"]),
        wrong("\"value-passing\"", "\"relay\"", "credit", &["\"lambda\" is missing"]),
        wrong("name = \"pair\"", "name = \"pair", "", &["string"]),
        wrong("name = \"pair\"", "name = pair", "", &["quoted"]),
        wrong("name = \"pair\"", "name = \"pair\"\nname = \"x\"", "name = \"x\"", &["duplicate key"]),
    ]);
    let one = GOOD.split("[[agents]]").next().unwrap().to_owned() + "[agents]\nname = \"writer\"\n";
    let message = load(one).unwrap_err();
    assert!(message.contains("two brackets"), "{message}");
}

#[test]
fn the_version() {
    all_are_answered(&[
        wrong("relevo.team/v1", "relevo.team/v2", "", &["\"relevo.team/v2\"", "\"relevo.team/v1\"", "write"]),
        wrong("schema = \"relevo.team/v1\"\n", "", "", &["first line", "schema = \"relevo.team/v1\""]),
        wrong("schema = \"relevo.team/v1\"", "schema = 1", "", &["expected a string"]),
        wrong("schema = ", "# later\n\nschema = \"v0\" #", "schema", &["\"v0\""]),
    ]);
}

#[test]
fn names() {
    all_are_answered(&[
        wrong("start = \"writer\"", "start = \"writter\"", "", &["start", "did you mean \"writer\"?"]),
        // The name of the team stands above, and is not what is meant.
        wrong("start = \"writer\"", "start = \"pair\"", "", &["start", "known are reader, writer"]),
        wrong("start = \"writer\"", "start = \"finish\"", "", &["start", "known are reader, writer"]),
        wrong("\"finish\", \"reader\"]\nt", "\"finish\", \"raeder\"]\nt", "", &["did you mean \"reader\"?"]),
        wrong("\"finish\", \"reader\"]\nt", "\"finsh\", \"reader\"]\nt", "", &["did you mean \"finish\"?"]),
        wrong(
            "\"finish\", \"reader\"]\nt",
            "\"pair\", \"reader\"]\nt",
            "",
            &["handoffs of \"writer\"", "known"],
        ),
        wrong(
            "to = \"writer\"",
            "to = \"writr\"",
            "",
            &["handoffs of \"reader\"", "did you mean \"writer\"?"],
        ),
        wrong("route = [\"reader\"", "route = [\"redaer\"", "", &["\"plain\"", "did you mean \"reader\"?"]),
        wrong(ROUTE, "rules = [{ to = \"redaer\" }]\n", "", &["\"plain\"", "did you mean \"reader\"?"]),
        wrong("name = \"reader\"", "name = \"writer\"", "", &["two agents", "\"writer\"", "rename"]),
        wrong("name = \"reader\"", "name = \"finish\"", "", &["\"finish\"", "ends a task", "rename"]),
        wrong("name = \"reader\"", "name = \"a reader\"", "", &["\"a reader\" is no name", "letters"]),
        wrong("name = \"reader\"", "name = \"\"", "", &["\"\" is no name"]),
        wrong("name = \"pair\"", "name = \"../pair\"", "", &["\"../pair\" is no name"]),
        wrong(
            "\"finish\", \"reader\"]\nt",
            "\"finish\", \"reader\", \"finish\"]\nt",
            "",
            &["twice", "keep one"],
        ),
    ]);
}

#[test]
fn agents_and_tasks() {
    all_are_answered(&[
        wrong("simulate = \"checker\"", "command = []", "", &["\"reader\"", "empty command", "command = ["]),
        wrong("simulate = \"checker\"", "command = [\"\"]", "", &["\"reader\"", "empty command"]),
        wrong("\"checker\"", "\"checker\"\ncommand = [\"./x\"]", "command", &["\"reader\"", "both", "leave"]),
        wrong("simulate = \"checker\"\n", "", "name = \"reader\"", &["\"reader\"", "add command = ["]),
        wrong(SIMULATE, TASKS, "simulate = \"editor\"", &["\"writer\"", "no [simulate]", "add it"]),
        wrong("[run]", "[tasks]\ntrain = \"a\"\ntest = \"b\"\njudge = \"text\"\n[run]", "", &["not both"]),
        wrong(
            "handoffs = [\"finish\", \"reader\"]",
            "handoffs = []",
            "",
            &["nobody", "handoffs = [\"finish\"]"],
        ),
        wrong("timeout_ms = 1000", "timeout_ms = 0", "", &["\"writer\"", "timeout_ms of 0", "1 .. 86400000"]),
        wrong("timeout_ms = 1000", "timeout_ms = 86400001", "", &["86400001", "a day"]),
        wrong("episodes = 10", "episodes = 0", "", &["episodes is 0", "at least 1"]),
        wrong("max_handoffs = 4", "max_handoffs = 0", "", &["max_handoffs is 0"]),
        wrong(ROUTE, "", "name = \"plain\"", &["\"plain\"", "add route = [..] or rules = [..]"]),
        wrong(ROUTE, "route = [\"reader\"]\nrules = [{ to = \"finish\" }]\n", "name = \"plain\"", &["both"]),
    ]);
    let message = load(GOOD.split("[[agents]]").next().unwrap().to_owned() + "[[workflows]]\nname = \"x\"\n");
    assert!(message.unwrap_err().contains("\"agents\" is missing"));
}

#[test]
fn observations_and_conditions() {
    const WHEN: &str = "when = { dataset = \"mathqa\" }";
    all_are_answered(&[
        wrong(
            "\"call.ended\"",
            "\"payload.knd\"",
            "",
            &["\"payload.knd\"", "did you mean \"payload.kind\"?"],
        ),
        wrong("\"call.ended\"", "\"handoff.x\"", "", &["\"handoff.x\"", "handoff.sender"]),
        wrong("\"call.ended\"", "\"own.\"", "", &["\"own.\" is unknown"]),
        wrong("\"call.ended\"", "\"\"", "", &["empty name", "payload.kind"]),
        wrong(WHEN, "when = { \"payload.knd\" = \"gz\" }", "", &["did you mean \"payload.kind\"?"]),
        wrong(WHEN, "when = { payload.kind = \"gz\" }", "", &["quoted", "\"payload.kind\" = \"gz\""]),
        wrong(WHEN, "wen = { dataset = \"mathqa\" }", "", &["a handoff is", "when = {"]),
        wrong(WHEN, "when = { dataset = 0.5 }", "", &["a handoff is", "whole numbers"]),
        wrong(ROUTE, "route = [\"reader\"]\nrepeat_until = { \"call.x\" = 1 }\n", "repeat", &["call.ended"]),
        wrong(ROUTE, "rules = [{ to = \"finish\", when = { x = 0.5 } }]\n", "", &["whole number", "a list"]),
        wrong(ROUTE, "rules = [{ to = \"finish\", when = { \"own.\" = 1 } }]\n", "", &["\"own.\""]),
        wrong("\"call.ended\"", "\"payload.given\"", "", &["\"payload.given\" is unknown"]),
        wrong("[simulate]", "[payload]\ngiven = \"(\"\n[simulate]", "given", &["given is no pattern"]),
        wrong("[simulate]", "[payload]\nkind = \"a\"\n[simulate]", "kind", &["means something else"]),
    ]);
}

const JUDGED: &str = r#"schema = "relevo.team/v1"
name = "judged"
start = "a"

[reward]
retry = -0.15
tokens = -0.3
time = -0.1
scale = "median"

[tasks]
train = "a.jsonl"
test = "b.jsonl"

[tasks.judge]
rule = "relative"
models = ["mini", "fast"]
group = 4
axes = [{ name = "truth", weight = 2, asks = "is it true?" }, { name = "style", weight = 0, asks = "" }]
canary = 0.05
audit = { model = "big", rate = 0.1 }

[[agents]]
name = "a"
command = ["./a"]
observes = []
handoffs = ["finish"]
"#;

#[test]
fn judges_and_rewards() {
    let team = TeamSpec::parse(JUDGED).unwrap();
    let Some(JudgeSpec::Relative(section)) = team.tasks.map(|tasks| tasks.judge) else { panic!() };
    assert_eq!((section.rubric().axes.len(), section.probes().swap), (2, 0.1));
    assert_eq!((team.reward.retry, team.reward.scale), (-0.15, RewardScale::Median));
    const MODELS: &str = "models = [\"mini\", \"fast\"]";
    all_are_answered_in(
        JUDGED,
        &[
            wrong("scale = \"median\"", "scale = \"medium\"", "", &["did you mean \"median\"?"]),
            wrong("rule = \"relative\"", "rule = \"relativ\"", "", &["did you mean \"relative\"?"]),
            wrong("rule = \"relative\"\n", "", "[tasks.judge]", &["\"rule\" is missing"]),
            wrong("group = 4", "groups = 4", "[tasks.judge]", &["\"groups\"", "did you mean \"group\"?"]),
            wrong("group = 4", "group = 1", "", &["group is 1", "2 to 16"]),
            wrong("group = 4", "group = 4\nswap = 1.5", "swap", &["swap is 1.5", "[0, 1]"]),
            wrong("canary = 0.05", "canary = -1", "", &["canary is -1"]),
            wrong("rate = 0.1", "rate = 2", "", &["rate is 2"]),
            wrong("\"big\"", "\"fast\"", "", &["would agree with itself"]),
            wrong(MODELS, "models = []", "", &["1 to 16 models"]),
            wrong(MODELS, "models = [\"mini\", \"mini\"]", "", &["\"mini\" is there twice"]),
            wrong("weight = 2", "weight = 0", "", &["weight above 0"]),
            wrong("weight = 2", "weight = -2", "", &["weight above 0"]),
            wrong("weight = 0", "weight = -2", "", &["[0, 1000000]"]),
            wrong("\"style\"", "\"truth\"", "", &["two axes are called \"truth\""]),
            wrong("\"style\"", "\"st yle\"", "", &["\"st yle\" is no name"]),
        ],
    );
    // Other judges stand in one line.
    let with = |judge: &str| {
        let (before, rest) = JUDGED.split_once("\n[tasks.judge]").unwrap();
        let agents = rest.split_once("[[agents]]").unwrap().1;
        TeamSpec::parse(&format!("{before}judge = {judge}\n[[agents]]{agents}"))
    };
    let line = 1 + JUDGED.lines().position(|line| line.starts_with("test = ")).unwrap() + 1;
    for judge in [
        r#"{ rule = "numeric", tolerance = 0.01, relative = 0.1, pointer = "/a" }"#,
        r#"{ rule = "json-schema" }"#,
        r#"{ rule = "command", command = ["./judge"], by = "exit-code" }"#,
    ] {
        let spec = with(judge).unwrap().tasks.unwrap().judge;
        let again: JudgeSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec, "{judge}");
    }
    for (judge, said) in [
        ("\"txt\"", "did you mean \"text\"?"),
        ("7", "\"text\", \"sha256\", or a table such as"),
        (r#"{ rule = "regex", tolerance = 1 }"#, "unknown key \"tolerance\""),
        (r#"{ rule = "numeric", tolernce = 1 }"#, "did you mean \"tolerance\"?"),
        (r#"{ rule = "numeric", tolerance = -1 }"#, "tolerance is -1"),
        (r#"{ rule = "numeric", pointer = "a" }"#, "pointer is \"a\": it begins with /"),
        (r#"{ rule = "command", command = [] }"#, "empty command"),
        (r#"{ rule = "command" }"#, "\"command\" is missing"),
        (r#"{ rule = "command", command = ["x"], timeout_ms = 0 }"#, "1 .. 86400000"),
    ] {
        let (at, message) = with(judge).unwrap_err();
        assert!(at == Some(line) && message.contains(said), "{judge}: {at:?} {message}");
    }
    // What the digest of a run rests on says nothing of what a file does not mention.
    let plain = serde_json::to_string(&with("\"text\"").unwrap().tasks).unwrap();
    assert!(plain.contains("\"judge\":\"text\""), "{plain}");
    let reward = serde_json::to_string(&RewardSpec::default()).unwrap();
    assert!(!["time", "retry", "scale"].iter().any(|key| reward.contains(key)), "{reward}");
}

const COORDINATED: &str = r#"schema = "relevo.team/v1"
name = "cells"

[simulate]
environment = "x@1"

[coordinator]
granularity = 0.2
facts = ["class"]
plans.ambiguous = ["planner", ["solver", "verifier"], "evaluator"]
required.high_risk = ["verifier"]

[[agents]]
name = "planner"
simulate = "x"

[[agents]]
name = "solver"
command = ["./solve"]
tools = ["web"]
variants = { skills = ["skills/cot.md", "skills/brief/SKILL.md"], models = ["mini", "fast"] }

[[agents]]
name = "memory"
simulate = "x"

[[agents]]
name = "sceptic"
role = "verifier"
simulate = "x"

[[agents]]
name = "evaluator"
simulate = "x"
"#;

#[test]
fn coordinated_teams() {
    const PLAN: &str = r#"["planner", ["solver", "verifier"], "evaluator"]"#;
    const VARIANTS: &str =
        r#"variants = { skills = ["skills/cot.md", "skills/brief/SKILL.md"], models = ["mini", "fast"] }"#;
    let team = TeamSpec::parse(COORDINATED).unwrap();
    let names: Vec<&str> = team.agents.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "planner",
            "solver_cot_mini",
            "solver_cot_fast",
            "solver_brief_mini",
            "solver_brief_fast",
            "memory",
            "sceptic",
            "evaluator"
        ]
    );
    assert_eq!(team.participant(AgentId(0), 1).unwrap().choices.len(), 1);
    all_are_answered_in(
        COORDINATED,
        &[
            wrong("[coordinator]\n", "[coordinator]\nstart = \"planner\"\n", "start", &["unknown key"]),
            wrong(
                "name = \"cells\"",
                "name = \"cells\"\nstart = \"planner\"",
                "start",
                &["coordinated team", "leave start out"],
            ),
            wrong(
                "name = \"planner\"",
                "name = \"planner\"\nhandoffs = [\"finish\"]",
                "handoffs",
                &["leave handoffs out"],
            ),
            wrong(
                "name = \"planner\"",
                "name = \"planner\"\nobserves = []",
                "observes",
                &["leave observes out"],
            ),
            wrong("name = \"planner\"", "name = \"planer\"", "", &["role", "did you mean \"planner\"?"]),
            wrong("role = \"verifier\"\n", "", "name = \"sceptic\"", &["add role = ", "synthesiser"]),
            wrong(
                "role = \"verifier\"",
                "role = \"verify\"",
                "",
                &["unknown value", "did you mean \"verifier\"?"],
            ),
            wrong("granularity = 0.2", "granularty = 0.2", "", &["did you mean \"granularity\"?"]),
            wrong("granularity = 0.2", "granularity = -0.2", "", &["granularity is -0.2", "[0.001, 1]"]),
            wrong("granularity = 0.2", "granularity = nan", "", &["finite"]),
            wrong("granularity = 0.2", "steps_max = 0", "", &["steps_max is 0"]),
            wrong("granularity = 0.2", "steps_max = 3", "", &["what high_risk requires takes 4"]),
            wrong("granularity = 0.2", "branches = 17", "", &["branches is 17"]),
            wrong("granularity = 0.2", "plan = \"flatt\"", "", &["\"flatt\""]),
            wrong("\"class\"", "\"a class\"", "", &["no name of a fact"]),
            wrong("plans.ambiguous", "plans.ambigous", "", &["did you mean \"ambiguous\"?"]),
            wrong(
                PLAN,
                "[\"planner\", \"solver_cot\"]",
                "",
                &["neither a role nor an agent", "did you mean"],
            ),
            wrong(PLAN, "[\"critic\"]", "", &["no agent has the role \"critic\""]),
            wrong(PLAN, "[1]", "", &["an entry of a plan is"]),
            wrong(PLAN, "[]", "", &["at least one cell"]),
            wrong(
                "high_risk = [\"verifier\"]",
                "high_risk = [\"critic\"]",
                "",
                &["no critic, which is required"],
            ),
            wrong(
                "tools = [\"web\"]",
                "skill = \"x.md\"",
                "skill = ",
                &["a skill and variants", "leave one"],
            ),
            wrong(VARIANTS, "variants = {}", "", &["neither skills nor models"]),
            wrong(VARIANTS, "variants = { models = [\"a b\"] }", "", &["no name"]),
            wrong(
                VARIANTS,
                "variants = { models = [\"mini\", \"mini\"] }",
                "name = \"solver\"",
                &["two agents", "variants"],
            ),
            wrong(VARIANTS, "operations = [\"a\", \"b\"]", "", &["as a whole"]),
        ],
    );
    all_are_answered(&[
        wrong("start = \"writer\"\n", "", "schema", &["\"start\" is missing"]),
        wrong("observes = [\"dataset\"]\n", "", "[[agents]]", &["\"observes\" is missing"]),
        wrong("observes", "role = \"solver\"\nobserves", "role", &["add a section [coordinator]"]),
    ]);
}

#[test]
fn skill_cards_are_read_beside_the_team_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("team.toml", COORDINATED);
    write("skills/cot.md", "---\nname: cot\ndescription: d\n---\nStep by step.\n");
    let load = || TeamSpec::load(&folder.path().join("team.toml"));
    let message = load().unwrap_err().to_string();
    assert!(message.contains(":21: ") && message.contains("skills/brief/SKILL.md"), "{message}");
    write("skills/brief/SKILL.md", "---\nname: brief\ndescription: d\n---\nIn a sentence.\n");
    let team = load().unwrap();
    assert_eq!(team.agents[3].card.as_ref().unwrap().instructions, "In a sentence.");
    let identities = |team: &TeamSpec| {
        let coordination = Coordination::of(team).unwrap();
        let columns = (0..8).map(|column| coordination.column_identity(ActionId(column)));
        columns.collect::<Vec<_>>()
    };
    let (arms, digest) = (identities(&team), team.config_digest(b""));
    assert_eq!(identities(&load().unwrap()), arms);
    write("skills/cot.md", "---\nname: cot\ndescription: d\n---\nStep by step!\n");
    let team = load().unwrap();
    let changed: Vec<bool> = identities(&team).iter().zip(&arms).map(|(new, old)| new != old).collect();
    assert_eq!(
        changed,
        [false, true, true, false, false, false, false, false],
        "the arms of that card alone"
    );
    assert_ne!(team.config_digest(b""), digest);
}

#[test]
fn numbers_out_of_range() {
    const STEP: &str = "{ rule = \"poly\", exponent = 0.7 }";
    const CREDIT: &str = "{ rule = \"value-passing\" }";
    all_are_answered(&[
        wrong(STEP, "{ rule = \"mean\" }", "", &["1/n", "value passing", "never forgets", "use resc, poly"]),
        wrong("exponent = 0.7", "exponent = 0.5", "", &["exponent", "0.5", "(0.5, 1)"]),
        wrong("exponent = 0.7", "exponent = 1.0", "", &["exponent", "(0.5, 1)"]),
        wrong(STEP, "{ rule = \"constant\", step = 0.0 }", "", &["constant step is 0", "(0, 1]"]),
        wrong("over = 0.5", "over = 0.0", "", &["over is 0", "(0, 1]"]),
        wrong("over = 0.5", "over = 1.5", "", &["over is 1.5", "(0, 1]"]),
        wrong("from = 1.0", "from = 1.5", "", &["epsilon is 1.5", "[0, 1]"]),
        wrong(RAMP, "-0.1", "", &["epsilon is -0.1", "[0, 1]"]),
        wrong(RAMP, "{ from = 1.0, to = 0.05 }", "", &["a ramp such as {", "over"]),
        wrong(RAMP, "{ from = 1.0, to = 0.05, over = 0.5, ower = 1.0 }", "", &["a ramp such as {"]),
        wrong(RAMP, "\"often\"", "", &["a number such as 0.1"]),
        wrong(POLICY, "{ rule = \"posterior\", variance = 0.0 }", "", &["variance", "(0, inf)"]),
        wrong(POLICY, "{ rule = \"ucb\", floor = -0.1 }", "", &["floor", "[0, 1]"]),
        wrong(CREDIT, "{ rule = \"relay\", lambda = 2.0 }", "", &["lambda is 2", "[0, 1]"]),
        wrong("initial = 0.0", "initial = 2.0", "", &["initial value is 2", "bounds"]),
        wrong("discount = 1.0", "discount = 1.1", "", &["discount is 1.1", "[0, 1]"]),
        wrong("[-1.0, 1.0]", "[1.0, -1.0]", "", &["values is [1, -1]", "smallest value first"]),
        wrong(
            CREDIT,
            "{ rule = \"value-passing\" }\nextensions = { refresh = 0.1 }",
            "extensions",
            &["decides"],
        ),
    ]);
}

/// TOML has `nan` and `inf`.
#[test]
fn numbers_are_finite() {
    all_are_answered(&[
        wrong("success = 1.0", "success = nan", "", &["success is NaN", "finite"]),
        wrong("call = -0.01", "call = -inf", "", &["call is -inf", "finite"]),
        wrong("discount = 1.0", "discount = nan", "", &["discount is NaN"]),
        wrong("initial = 0.0", "initial = nan", "", &["initial is NaN"]),
        wrong("[-1.0, 1.0]", "[-1.0, inf]", "", &["values is inf"]),
        wrong("over = 0.5", "over = nan", "", &["over is NaN"]),
        wrong("exponent = 0.7", "exponent = nan", "", &["exponent is NaN"]),
        wrong(POLICY, "{ rule = \"ucb\", reliability = nan }", "", &["reliability is NaN"]),
        wrong(POLICY, "{ rule = \"ucb\", exploration = inf }", "", &["exploration is inf"]),
        wrong(POLICY, "{ rule = \"posterior\", variance = inf }", "", &["variance is inf"]),
        wrong(
            "environment = \"maths@1\"",
            "environment = \"x\"\noptions.a = [1, nan]",
            "options",
            &["a is NaN"],
        ),
    ]);
}

#[test]
fn what_is_no_team_file_is_refused() {
    for text in ["", "garbage", "= = =", "{\"schema\": 1}", "[[[", "\u{0}\u{1}", "\u{feff}", "schema"] {
        let message = load(text).unwrap_err();
        assert!(message.starts_with(":1: "), "{text:?}: {message}");
    }
    assert!(load("").unwrap_err().contains("schema = \"relevo.team/v1\""));
    let message = load(b"\xff\xfe\x00").unwrap_err();
    assert!(message.contains("cannot be read"), "{message}");
    let message = TeamSpec::load("no/such/team.toml".as_ref()).unwrap_err().to_string();
    assert!(message.starts_with("no/such/team.toml: ") && message.contains("cannot be read"), "{message}");
}

/// 5 MB of anything are answered at once, and in a line that a terminal can hold.
#[test]
fn large_files_are_answered_soon() {
    const BYTES: usize = 5 << 20;
    let letters = "y".repeat(BYTES);
    let files = [
        letters.clone(),
        "[".repeat(BYTES),
        "a=".to_owned() + &"[".repeat(BYTES),
        "a=".to_owned() + &"{a=".repeat(BYTES / 3),
        GOOD.replacen("\"finish\"", &format!("{letters:?}"), 1),
        GOOD.replacen("max_handoffs", &letters, 1),
        GOOD.replacen("relevo.team/v1", &letters, 1),
        GOOD.replacen("\"reader\"", &format!("{letters:?}"), 2),
    ];
    for text in files {
        let asked = Instant::now();
        let Err((_, message)) = TeamSpec::parse(&text) else { panic!("accepted") };
        assert!(message.len() < 400, "{} bytes of message", message.len());
        assert!(asked.elapsed() < Duration::from_secs(20), "{message} after {:?}", asked.elapsed());
    }
}
