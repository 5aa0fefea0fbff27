//! The section `[models]` of a team file: who acts by a model, what is refused, and what makes another arm.

use relevo::{coordinate::coordination::Coordination, team::TeamSpec};
use relevo_core::ids::ActionId;

const TEAM: &str = r#"schema = "relevo.team/v1"
name = "t"
[simulate]
environment = "maths@1"
[coordinator]
plan = "flat"
[models.mini]
model = "m-1"
url = "http://127.0.0.1:9/v1"
key = "MINI_KEY"
price = { input = 0.1, output = 0.4 }
temperature = 0.2
[models.fast]
provider = "anthropic"
model = "f-1"
[[agents]]
name = "solver"
variants = { models = ["mini", "fast"] }
[[agents]]
name = "evaluator"
model = "fast"
timeout_ms = 1000
[[agents]]
name = "verifier"
command = ["./verify"]
model = "any label"
"#;

fn changed(from: &str, to: &str) -> String {
    assert!(TEAM.contains(from), "{from:?}");
    TEAM.replacen(from, to, 1)
}

#[test]
fn agents_act_by_models() {
    let team = TeamSpec::parse(TEAM).unwrap();
    let of = |name: &str| team.agents.iter().find(|agent| agent.name == name).unwrap();
    let model = |name: &str| team.model_of(of(name)).map(|section| section.model.as_str());
    assert_eq!((model("solver_mini"), model("solver_fast")), (Some("m-1"), Some("f-1")));
    assert_eq!((model("evaluator"), model("verifier")), (Some("f-1"), None), "a program acts for itself");
    assert_eq!(["solver_mini", "evaluator", "verifier"].map(|n| of(n).timeout_ms), [300_000, 1000, 30_000]);
}

#[test]
fn what_makes_no_model_is_refused_with_what_to_do() {
    let secret = "sk-taint-5f1c";
    let cases = [
        (changed("\"mini\", \"fast\"", "\"mini\", \"fats\""), 18, "did you mean \"fast\"?"),
        (changed("model = \"fast\"\n", ""), 20, "nothing to act with"),
        (changed("\"anthropic\"", "\"antropic\""), 14, "did you mean \"anthropic\"?"),
        (changed("model = \"m-1\"", "model = \" \""), 8, "no name of a model"),
        (changed("http://127.0.0.1:9/v1", "localhost"), 9, "no address"),
        (changed("http://", &format!("http://{secret}@")), 9, "keys come from the environment"),
        (changed("MINI_KEY", secret), 10, "the name of a variable"),
        (changed("key = \"MINI_KEY\"", &format!("api_key = \"{secret}\"")), 10, "api_key"),
        (changed("input = 0.1", "input = -0.1"), 11, "0 or more"),
        (changed("temperature = 0.2", "temperature = 3"), 12, "[0, 2]"),
        (changed("temperature = 0.2", "concurrency = 0"), 12, "1 .. 1024"),
        (changed("temperature = 0.2", "timeout_ms = 0"), 12, "timeout_ms is 0"),
        (changed("temperature = 0.2", "max_tokens = 0"), 12, "max_tokens is 0"),
        (changed("[models.mini]", "[models.\"a b\"]"), 7, "no name"),
    ];
    for (text, line, said) in cases {
        let (at, message) = TeamSpec::parse(&text).unwrap_err();
        assert!(message.contains(said) && !message.contains("taint"), "{said}: {message}");
        assert_eq!(at, Some(line), "{message}");
    }
    let none = TEAM.split("[models.mini]").next().unwrap().to_owned()
        + "[[agents]]\nname = \"solver\"\nmodel = \"x\"\n";
    let (_, message) = TeamSpec::parse(&none).unwrap_err();
    assert!(message.contains("add [models.NAME]"), "{message}");
}

/// What answers depend on makes another arm, and another run; prices another run; patience and keys neither.
#[test]
fn another_model_is_another_arm() {
    let made = |text: &str| {
        let team = TeamSpec::parse(text).unwrap();
        let coordination = Coordination::of(&team).unwrap();
        let arms: Vec<String> = (0..4).map(|column| coordination.column_identity(ActionId(column))).collect();
        (arms, team.config_digest(b""))
    };
    let (arms, digest) = made(TEAM);
    let cases = [
        ("\"m-1\"", "\"m-2\"", true, true),
        ("temperature = 0.2", "temperature = 0.3", true, true),
        ("temperature = 0.2", "temperature = 0.2\nmax_tokens = 9", true, true),
        ("http://127.0.0.1:9/v1", "http://127.0.0.1:8/v1", true, true),
        ("input = 0.1", "input = 0.2", false, true),
        ("MINI_KEY", "OTHER_KEY", false, false),
        (
            "temperature = 0.2",
            "temperature = 0.2\ntimeout_ms = 9\nretries = 1\nconcurrency = 2",
            false,
            false,
        ),
    ];
    for (from, to, another_arm, another_run) in cases {
        let (then, digest_then) = made(&changed(from, to));
        assert_eq!((then[0] != arms[0], digest_then != digest), (another_arm, another_run), "{to}");
        assert_eq!(then[1..], arms[1..], "{to}: other arms stay");
    }
}
