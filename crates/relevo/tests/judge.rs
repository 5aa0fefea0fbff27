//! Judges that judge every candidate for itself: rules in tables, programs as real programs.

use std::{fs, future::Future};

use proptest::prelude::*;
use relevo::{
    agent::FailureKind,
    artifact::Artifact,
    judge::{
        Candidate, Expectation, Judge, Verdict,
        command::{CommandJudge, CommandSpec, ScoredBy},
        rule::{Numeric, Rule, RuleJudge},
    },
    tasks::{FileTasks, TaskSource},
    team::TeamSpec,
};
use serde_json::{Value, json};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn expect(value: Value) -> Expectation {
    serde_json::from_value(value).unwrap()
}

fn candidate(answer: impl Into<Vec<u8>>) -> Candidate {
    Candidate {
        task: "7".into(),
        question: "how many?".into(),
        answer: answer.into(),
        ..Candidate::default()
    }
}

fn qualities(verdict: &Verdict) -> Vec<Option<f64>> {
    verdict.scores.iter().map(|score| score.as_ref().map(|score| score.quality)).collect()
}

// ---- rules ----

#[test]
fn rules_compare_as_they_say() {
    let numeric = |tolerance, relative, pointer: Option<&str>| {
        Rule::Numeric(Numeric { tolerance, relative, pointer: pointer.map(str::to_owned) })
    };
    let (exact, near) = (numeric(0.0, 0.0, None), numeric(0.01, 0.001, None));
    let at = numeric(0.0, 0.0, Some("/total/0"));
    let (number, big) = (json!({"number": 42}), json!({"number": -123456.5}));
    let schema =
        json!({"schema": {"type": "object", "required": ["a"], "properties": {"a": {"pattern": "^x+$"}}}});
    let facts = json!({"contains": ["Leader  lease", "quorum", "fencing"]});
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (rule, expected, answer, quality) in [
        (&Rule::Text, json!({"text": " yes\n"}), "yes  ", 1.0),
        (&Rule::Text, json!({"text": "yes"}), "Yes", 0.0),
        (&Rule::Sha256, json!({"sha256": empty.to_uppercase()}), "", 1.0),
        (&Rule::Sha256, json!({ "sha256": empty }), " ", 0.0),
        (&exact, number.clone(), "first 7, then **42**.", 1.0),
        (&exact, number.clone(), "42 or 41", 0.0),
        (&exact, number.clone(), "none", 0.0),
        (&exact, number.clone(), "it is 42 (see step_9 and H2O)", 1.0),
        (&exact, number.clone(), "pages 7-42", 1.0),
        (&exact, number.clone(), "1e999", 0.0),
        (&exact, big.clone(), "-123,456.5", 1.0),
        (&exact, big.clone(), "\u{2212}1234565e-1", 1.0),
        (&near, json!({"number": 0.5}), "0.509", 1.0),
        (&near, json!({"number": 0.5}), ".5101", 0.0),
        (&near, json!({"number": 5000}), "5004.9", 1.0),
        (&near, json!({"number": 5000}), "5005.1", 0.0),
        (&at, number.clone(), r#"{"total": [42.0, 1]}"#, 1.0),
        (&at, number.clone(), r#"{"total": ["42"]}"#, 1.0),
        (&at, number.clone(), r#"{"total": 42}"#, 0.0),
        (&at, number, "42", 0.0),
        (&Rule::Regex, json!({"regex": "^(?i)yes\\b"}), "  YES, it is", 1.0),
        (&Rule::Regex, json!({"regex": "^yes$"}), "oh yes", 0.0),
        (&Rule::Regex, json!({"regex": "(a+)+$"}), &("a".repeat(50_000) + "b"), 0.0),
        (&Rule::JsonSchema, schema.clone(), r#"{"a": "xx"}"#, 1.0),
        (&Rule::JsonSchema, schema.clone(), r#"{"a": "xy"}"#, 0.0),
        (&Rule::JsonSchema, schema.clone(), "{}", 0.0),
        (&Rule::JsonSchema, schema, "a = xx", 0.0),
        (&Rule::Contains, facts.clone(), "a leader\nlease, a QUORUM and Fencing tokens", 1.0),
        (&Rule::Contains, facts.clone(), "a quorum", 1.0 / 3.0),
        (&Rule::Contains, facts, "", 0.0),
    ] {
        let score = rule.score(&expect(expected.clone()), answer.as_bytes()).unwrap();
        assert!((score.quality - quality).abs() < 1e-12, "{rule:?} {expected} {answer}: {score:?}");
        assert_eq!(score.confidence, 1.0);
    }
    let long = vec![b'4'; 2 << 20];
    assert_eq!(exact.score(&expect(json!({"number": 4})), &long).unwrap().quality, 0.0, "not looked at");
    assert_eq!(Rule::Text.score(&expect(json!({"text": "a"})), b"\xffa").unwrap().quality, 0.0);
}

proptest! {
    #[test]
    fn the_last_number_is_found_as_it_was_written(x in prop::num::f64::NORMAL | prop::num::f64::ZERO, words in "[a-z ,.]{0,20}") {
        let expected = expect(json!({ "number": x }));
        for answer in [format!("7 {words} {x}"), format!("7 {words} ({x:e}){words}"), format!("{x:+}.")] {
            let score = Rule::Numeric(Numeric::default()).score(&expected, answer.as_bytes()).unwrap();
            prop_assert_eq!(score.quality, 1.0, "{}: {:?}", answer, score);
        }
    }

    #[test]
    fn any_answer_has_a_quality(answer in prop::collection::vec(any::<u8>(), 0..200), text in "[-+0-9.,eE{}\"/:\\[\\] ]{0,60}") {
        let expected = expect(json!({"number": 4, "regex": "4$", "text": "4", "contains": ["4"], "schema": {"type": "number"}}));
        let at = Rule::Numeric(Numeric { pointer: Some("/0".into()), ..Numeric::default() });
        for rule in [Rule::Numeric(Numeric::default()), at, Rule::Regex, Rule::Text, Rule::Contains, Rule::JsonSchema] {
            for answer in [answer.as_slice(), text.as_bytes()] {
                let quality = rule.score(&expected, answer).unwrap().quality;
                prop_assert!(quality == 0.0 || quality == 1.0);
            }
        }
    }
}

#[test]
fn what_a_rule_cannot_be_applied_to_is_refused_beforehand() {
    let numeric = Rule::Numeric(Numeric::default());
    for (rule, expected, said) in [
        (&Rule::Text, json!({}), "expect.text is missing"),
        (&Rule::Text, json!({"text": 7}), "expect.text must be a text"),
        (&Rule::Text, json!({"text": "a", "txt": ""}), "expect.txt is unknown; did you mean \"text\"?"),
        (&Rule::Sha256, json!({"sha256": "00"}), "64 hexadecimal digits"),
        (&numeric, json!({"number": "4"}), "expect.number must be a number"),
        (&numeric, json!({"text": "4"}), "expect.number is missing"),
        (&Rule::Regex, json!({"regex": "(?=a)"}), "no pattern"),
        (&Rule::Regex, json!({"regex": "(((a{100}){100}){100})"}), "no pattern"),
        (&Rule::JsonSchema, json!({"schema": {"type": 7}}), "no schema"),
        (&Rule::JsonSchema, json!({"schema": {"$ref": "https://example.com/a.json"}}), "no schema"),
        (&Rule::JsonSchema, json!({"schema": {"$ref": "file:///etc/passwd"}}), "no schema"),
        (&Rule::Contains, json!({"contains": []}), "list of 1 to 256 texts"),
        (&Rule::Contains, json!({"contains": ["a", " "]}), "list of 1 to 256 texts"),
    ] {
        let error = rule.check(&expect(expected.clone())).unwrap_err();
        assert!(error.contains(said), "{expected}: {error}");
    }
    // A judge that cannot be applied has no score; it does not say 0.
    let bare = Candidate { expected: Some(expect(json!({}))), ..candidate("4") };
    let right = Candidate { expected: Some(expect(json!({"number": 4}))), ..candidate("4") };
    let verdict = wait(RuleJudge(numeric).judge(&[bare, right, candidate("4")], ""));
    assert_eq!(qualities(&verdict), [None, Some(1.0), None]);
    assert_eq!(verdict.failures.iter().map(|f| f.candidate).collect::<Vec<_>>(), [Some(0), Some(2)]);
}

#[test]
fn task_files_say_what_their_rule_needs() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in"), "how many?").unwrap();
    let team = |judge: &str| {
        let text = format!(
            "schema = \"relevo.team/v1\"\nname = \"t\"\nstart = \"a\"\n[tasks]\ntrain = \"t.jsonl\"\ntest = \"t.jsonl\"\n\
             judge = {judge}\n[[agents]]\nname = \"a\"\ncommand = [\"./a\"]\nobserves = []\nhandoffs = [\"finish\"]\n"
        );
        TeamSpec::parse(&text).unwrap().tasks.unwrap()
    };
    let load = |judge: &str, expect: &str| {
        let lines = format!("\n{{\"id\":\"1\",\"input\":\"in\"{expect}}}\n");
        fs::write(folder.path().join("t.jsonl"), lines).unwrap();
        FileTasks::load(&team(judge), folder.path()).map_err(|e| e.to_string())
    };
    let mut identities = vec![];
    for (judge, expect, answer, quality) in [
        ("\"text\"", r#","expect":{"text":"4","sha256":"0"}"#, "4", Some(1.0)),
        (r#"{ rule = "text" }"#, r#","expect":{"text":"4"}"#, "5", Some(0.0)),
        (r#"{ rule = "numeric", tolerance = 0.5 }"#, r#","expect":{"number":4}"#, "4.4", Some(1.0)),
        (r#"{ rule = "numeric", tolerance = 0.1 }"#, r#","expect":{"number":4}"#, "4.4", Some(0.0)),
        (r#"{ rule = "contains" }"#, r#","expect":{"contains":["a","b"]}"#, "A", Some(0.5)),
        (r#"{ rule = "command", command = ["./judge"] }"#, r#","expect":{"tests":["a"]}"#, "A", None),
        (r#"{ rule = "relative", models = ["m"] }"#, "", "A", None),
    ] {
        let tasks = load(judge, expect).unwrap_or_else(|e| panic!("{judge}: {e}"));
        let task = tasks.evaluation(0).unwrap().unwrap();
        let artifact = Artifact { payload: answer.as_bytes().into(), ..Artifact::default() };
        assert_eq!(tasks.quality(&task, &artifact), quality, "{judge}");
        identities.push(tasks.identity());
    }
    assert_ne!(identities[2], identities[3], "another tolerance is another judge");
    for (judge, expect, said) in [
        ("\"text\"", "", "t.jsonl:2: expect is missing: the judge \"text\" compares with it"),
        ("\"text\"", r#","expect":{"sha256":""}"#, "t.jsonl:2: expect.text is missing"),
        (
            r#"{ rule = "regex" }"#,
            r#","expect":{"regx":""}"#,
            "t.jsonl:2: expect.regx is unknown; did you mean \"regex\"?",
        ),
        (r#"{ rule = "regex" }"#, r#","expect":{"regex":"("}"#, "t.jsonl:2: expect.regex is no pattern: "),
        (r#"{ rule = "regex" }"#, r#","expect":7"#, "t.jsonl:2: "),
    ] {
        let error = load(judge, expect).err().expect(judge);
        assert!(error.contains(said), "{judge} {expect}: {error}");
    }
}

// ---- programs ----

#[test]
fn programs_judge() {
    let folder = tempfile::tempdir().unwrap();
    let judge = |script: &str, by| {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        CommandJudge::new(&CommandSpec { command, by, timeout_ms: 5_000, environment: vec![] }, folder.path())
    };
    let (reply, code) = (ScoredBy::Reply, ScoredBy::ExitCode);
    let kind = |kind: FailureKind| Err(Some(kind));
    for (script, by, outcome) in [
        (r#"grep -q yes in && echo '{"score": 0.7, "tokens": 5, "money": 0.25}'"#, reply, Ok(0.7)),
        (r#"grep -q '"expect":{"tests":\["a"\]}' && echo '{"score": 1}'"#, reply, Ok(1.0)),
        (r#"grep -q '"schema":"relevo.judge/v1","task":"7"' && echo '{"score": 0}'"#, reply, Ok(0.0)),
        (r#"echo '{"score": null}'"#, reply, Err(None)),
        (r#"echo '{"score": 1.5}'"#, reply, kind(FailureKind::Garbage)),
        (r#"echo '{"score": 1, "confidence": -1}'"#, reply, kind(FailureKind::Garbage)),
        (r#"echo '{"score": 1, "sure": 1}'"#, reply, kind(FailureKind::Garbage)),
        (r#"echo '{"score": 1, "money": -1}'"#, reply, kind(FailureKind::Garbage)),
        ("echo 1", reply, kind(FailureKind::Garbage)),
        ("exit 0", reply, kind(FailureKind::Garbage)),
        (r#"echo '{"score": 1}'; exit 1"#, reply, kind(FailureKind::Crash)),
        ("grep -q yes in", code, Ok(1.0)),
        ("grep -q no in", code, Ok(0.0)),
        ("exit 2", code, kind(FailureKind::Crash)),
        ("kill -9 $$", code, kind(FailureKind::Crash)),
    ] {
        let mut asked = candidate("yes");
        asked.expected = Some(expect(json!({"tests": ["a"]})));
        let verdict = wait(judge(script, by).judge(&[asked], ""));
        let found = match (&verdict.scores[0], verdict.failures.first()) {
            (Some(score), None) => Ok(score.quality),
            (None, failure) => Err(failure.map(|f| f.failure.kind())),
            both => panic!("{script}: {both:?}"),
        };
        assert_eq!((found, verdict.calls), (outcome, 1), "{script}");
        let costs = if script.contains("0.7") { (5, 0.25) } else { (0, 0.0) };
        assert_eq!((verdict.tokens, verdict.money), costs, "{script}");
    }
    let crash = wait(judge("echo why >&2; exit 3", reply).judge(&[candidate("")], ""));
    assert_eq!(crash.failures[0].last_words, "why");
}
