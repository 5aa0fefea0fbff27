//! Generated corpora, the search over them and scripted models, as a person meets them.

mod place;

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command},
};

use place::{Place, Said, assert_holds, signal};
use serde_json::Value;

/// `relevo` as somebody has it who has installed it, with models at this URL.
fn relevo(place: &Place, url: &str, arguments: &str) -> Command {
    let installed = Path::new(env!("CARGO_BIN_EXE_relevo")).parent().unwrap();
    let path = env::join_paths(
        std::iter::once(installed.to_owned()).chain(env::split_paths(&env::var_os("PATH").unwrap())),
    );
    let mut command = place.command(arguments);
    command.env("PATH", path.unwrap()).env("OPENAI_BASE_URL", url).env_remove("OPENAI_API_KEY");
    command
}

/// A server that does not outlive a test that fails.
struct Served(Option<Child>);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.take().map(|mut server| server.kill());
    }
}

/// Models that are served while something is done with their URL.
fn with_models(place: &Place, arguments: &str, then: impl FnOnce(&str)) -> String {
    let mut served =
        Served(Some(place.command(&format!("lab models c --port 0 {arguments}")).spawn().unwrap()));
    let mut line = String::new();
    BufReader::new(served.0.as_mut().unwrap().stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("export OPENAI_BASE_URL=").unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    then(url);
    let server = served.0.take().unwrap();
    signal(&server, "INT");
    let said = Said::new(server.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stderr
}

#[test]
fn a_corpus_is_made_searched_and_learned_on() {
    let place = Place::new();
    let said = place.relevo("lab corpus incident --seed 7 --tasks 16 --tests 8 --out c");
    assert_holds(&said.stderr, &["16 tasks to learn on, 8 to measure on", "relevo lab models c"]);
    assert_holds(&place.read("c/README.md"), &["generated, and nothing in them is real"]);
    place.ok("lab corpus incident --seed 7 --tasks 16 --tests 8 --out same");
    for file in ["documents.jsonl", "train.jsonl", "test.jsonl", "team.toml", "tasks/test-pair-2.txt"] {
        assert_eq!(place.read(&format!("c/{file}")), place.read(&format!("same/{file}")), "{file}");
    }
    let document: Value =
        serde_json::from_str(place.read("c/documents.jsonl").lines().next().unwrap()).unwrap();
    let found = place.ok(&format!("lab search c {} --most 1", document["title"].as_str().unwrap()));
    assert_holds(&found, &[document["id"].as_str().unwrap()]);

    let evaluate = "evaluate c/team.toml --class class --epochs 2";
    let requests = with_models(&place, "--seed 7", |url| {
        let run = |arguments: &str| Said::new(relevo(&place, url, arguments).output().unwrap());
        assert_holds(&run("doctor c/team.toml").stdout, &["scripted-large answers", "all is there"]);
        let all = run(&format!("{evaluate} --arms fixed,cold,parity --seeds 1000..1002 --out arms"));
        assert_eq!(all.code, Some(0), "{}", all.stderr);
        run(&format!("{evaluate} --arms cold --seeds 1001..1002 --out again"));
    });
    assert_holds(&requests, &["requests were answered"]);
    let evaluation: Value = serde_json::from_str(&place.read("arms/evaluation.json")).unwrap();
    assert_eq!(evaluation["seeds"], serde_json::json!([1000, 1001]));
    let arm = |name: &str| {
        let arms = evaluation["arms"].as_array().unwrap();
        arms.iter().find(|arm| arm["arm"] == name).unwrap_or_else(|| panic!("no {name}"))
    };
    let mean = |name: &str, of: &str| arm(name)["measured"]["total"][of]["mean"].as_f64().unwrap();
    assert_eq!(mean("fixed", "calls"), 8.0);
    assert!(mean("fixed", "quality") > 0.5);
    assert!(mean("cold", "tokens") < mean("fixed", "tokens"));
    assert_eq!(arm("cold")["measured"]["by_class"].as_object().unwrap().len(), 8);
    assert!(mean("parity", "money") > 0.0 && arm("parity")["learning"]["tasks"]["mean"] == 32.0);
    // The same seed comes to the same, but for the time that it took.
    let lessons = |folder: &str| -> Vec<Value> {
        let text = place.read(&format!("{folder}/cold-1001/lessons.jsonl"));
        let without_time = |line: &str| {
            let mut sample: Value = serde_json::from_str(line).unwrap();
            sample["ms"] = Value::Null;
            sample
        };
        text.lines().map(without_time).collect()
    };
    assert_eq!(lessons("again"), lessons("arms"));
    assert_holds(
        &place.read("arms/evaluation.html"),
        &["quality per task while learning, by the tokens", ">parity<"],
    );
}

#[test]
fn a_team_gets_by_with_models_that_fail() {
    let place = Place::new();
    place.ok("lab corpus advisory --seed 7 --tasks 8 --tests 8 --out c");
    with_models(&place, "--faults 0.3 --latency-ms 1", |url| {
        let run =
            relevo(&place, url, "evaluate c/team.toml --arms fixed --seeds 1 --epochs 1 --out arms").output();
        assert_eq!(Said::new(run.unwrap()).code, Some(0));
    });
    let evaluation: Value = serde_json::from_str(&place.read("arms/evaluation.json")).unwrap();
    let total = &evaluation["arms"][0]["measured"]["total"];
    assert!(total["failures"]["mean"].as_f64().unwrap() > 0.5, "{total}");
    assert!(total["quality"]["mean"].as_f64().unwrap() > 0.3, "{total}");
}

#[test]
fn what_is_asked_wrongly_is_refused() {
    let place = Place::new();
    for (arguments, said) in [
        ("lab corpus incident --tasks 1300", "together there are at most 1280"),
        ("lab models nowhere", "`relevo lab corpus` makes some"),
        ("lab search nowhere amber", "nowhere/documents.jsonl"),
    ] {
        assert_holds(&place.error(arguments), &[said]);
    }
    for (arguments, said) in [
        ("lab corpus weather", "incident, advisory"),
        ("lab models c --faults 2", "from 0 to 1"),
        ("evaluate team.toml --seeds 7..7", "1000..1005"),
        ("evaluate team.toml --seeds 0", "1000..1005"),
    ] {
        let refused = place.relevo(arguments);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert_holds(&refused.stderr, &[said]);
    }
    place.ok("lab corpus advisory --tasks 8 --tests 8 --out c");
    let refused: Value = serde_json::from_str(&place.ok("lab search c")).unwrap();
    assert_eq!((&refused["ok"], &refused["kind"]), (&false.into(), &"invalid-request".into()));
    assert_holds(refused["error"].as_str().unwrap(), &["to search by hand, add words"]);
    place.write("c/documents.jsonl", "{\"id\":1}\n");
    assert_holds(&place.error("lab search c amber"), &["documents.jsonl:1:"]);
}
