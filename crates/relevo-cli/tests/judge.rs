//! `relevo judge` as a person meets it.

mod place;

use std::fmt::Write;

use place::{Place, Said};

const TEAM: &str = r#"schema = "relevo.team/v1"
name = "judged"
start = "a"

[tasks]
train = "t.jsonl"
test = "t.jsonl"
judge = { rule = "contains" }

[[agents]]
name = "a"
command = ["./a"]
observes = []
handoffs = ["finish"]
"#;

/// Twelve tasks that `long` was given more for than `short`, though `short` says what was asked.
fn finished() -> Place {
    let place = Place::new();
    place.write("team.toml", TEAM);
    let mut lines = String::new();
    for n in 0..12 {
        for (arm, answer, quality) in
            [("long", "well \\u001b[2J", 0.9), ("short", "a quorum", 0.4 + 0.01 * f64::from(n))]
        {
            let expected = r#"{"contains":["quorum"]}"#;
            let candidate = format!(r#"{{"task":"{n}","answer":"{answer}","expected":{expected}}}"#);
            writeln!(lines, r#"{{"arm":"{arm}","candidate":{candidate},"quality":{quality}}}"#).unwrap();
        }
    }
    place.write("finished.jsonl", &lines);
    place
}

#[test]
fn an_audit_says_which_conclusions_change() {
    let place = finished();
    let told = place.ok("judge audit finished.jsonl --judges team.toml");
    assert!(
        told.starts_with("24 finished tasks in 12 groups scored once more: agreement 0.000 ± 0.000"),
        "{told}"
    );
    let row: Vec<&str> =
        told.lines().find(|line| line.contains("short")).unwrap().split_whitespace().collect();
    assert_eq!(
        (&row[..2], &row[row.len() - 4..]),
        (&["long", "short"][..], &["12", "first", "->", "second"][..])
    );

    let json: serde_json::Value =
        serde_json::from_str(&place.ok("judge audit finished.jsonl --judges team.toml --json")).unwrap();
    assert_eq!(json["pairs"][0]["concluded"], serde_json::json!(["first", "second"]));
    assert_eq!((&json["scored"], &json["verdict"]["calls"]), (&24.into(), &0.into()));
}

#[test]
fn what_cannot_be_audited_is_said() {
    let place = finished();
    place.write("bad.jsonl", "{\"arm\":\"a\"}\n");
    let relative = r#"{ rule = "relative", models = ["mini"] }"#;
    place.write("models.toml", &TEAM.replace(r#"{ rule = "contains" }"#, relative));
    for (asked, said) in [
        ("judge audit bad.jsonl --judges team.toml", "bad.jsonl:1: missing field `candidate`"),
        ("judge audit none.jsonl --judges team.toml", "none.jsonl: "),
        ("judge audit finished.jsonl --judges none.toml", "none.toml: the team file cannot be read"),
        ("judge audit finished.jsonl --judges models.toml", "models.toml: the model \"mini\" is unknown"),
    ] {
        let Said { code, stdout, stderr } = place.relevo(asked);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{asked}");
        assert!(stderr.contains(said), "{asked}: {stderr}");
    }
}
