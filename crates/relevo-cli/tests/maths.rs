//! `examples/maths`: a team of real, small language models learns out of the box, without a key or a network.

mod place;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
};

use place::{Place, Said, assert_holds, signal};
use serde_json::Value;

/// The team of `examples/maths` with its skill cards, measured on few tasks.
fn maths() -> Place {
    let example = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/maths"));
    let team = fs::read_to_string(example.join("team.toml")).unwrap();
    let small = team.replace("evaluation_tasks = 1_500", "evaluation_tasks = 30");
    assert_ne!(team, small, "the example is measured on another number of tasks");
    let place = Place::new();
    place.write("team.toml", &small);
    fs::create_dir(place.path("skills")).unwrap();
    for card in fs::read_dir(example.join("skills")).unwrap() {
        let card = card.unwrap();
        fs::copy(card.path(), place.path("skills").join(card.file_name())).unwrap();
    }
    place
}

/// What every agent of a run knows at its end.
fn learned(place: &Place, run: &str) -> Value {
    let policy: Value = serde_json::from_str(&place.read(&format!("{run}/policy.json"))).unwrap();
    policy["agents"].clone()
}

#[test]
fn the_model_in_the_box_learns_the_same_twice() {
    let place = maths();
    let said = place.relevo("learn team.toml --episodes 300 --out one");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_holds(
        &said.stdout,
        &["dataset=elementary", "dataset=hard", "dataset=high-school", "learned workflow", "combine-T"],
    );
    assert_holds(&said.stdout, &["    [editor]\n    Answer: ", ", right\n", "A) "]);
    let again = place.relevo("learn team.toml --episodes 300 --out two --jobs 64");
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(learned(&place, "one"), learned(&place, "two"), "64 at a time, in rounds");
    assert_holds(&place.data("doctor team.toml"), &["relevo-lm-1 answers", "problems"]);
    place.write("problem", "What is 45 + 38?\nA) 73 B) 83 C) 84 D) 93");
    let said = place.relevo("run team.toml --policy one --input problem --output out");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_holds(&place.read("out"), &["What is 45 + 38?", "[editor]\nAnswer: "]);
}

/// Behind HTTP it is a model like any other, and what is learned of it the same.
#[test]
fn the_team_learns_from_a_served_model() {
    let place = maths();
    let mut server = place.command("lm serve --port 0").spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("export OPENAI_BASE_URL=").unwrap();
    let relevo = |arguments: &str| {
        let mut command = place.command(arguments);
        let command = command.env("OPENAI_BASE_URL", url).env("OPENAI_API_KEY", "sk-taint-5f1c");
        Said::new(command.output().unwrap())
    };
    let said = relevo("learn team.toml --model openai::relevo-lm-1 --episodes 12 --out over");
    let wrong = relevo("learn team.toml --model relevo-lm-9 --out wrong");
    signal(&server, "INT");
    let ended = Said::new(server.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_holds(&said.stdout, &["learned workflow", "    [editor]\n    Answer: "]);
    assert!(!said.stdout.contains("taint") && !said.stderr.contains("taint"));
    assert_eq!(wrong.code, Some(1), "{}", wrong.stdout);
    assert_holds(&wrong.stderr, &["there is \"relevo-lm-1\"", "Nothing was begun"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_holds(&ended.stderr, &["relevo-lm-1 (", "requests were answered"]);
    place.ok("learn team.toml --episodes 12 --out inside");
    assert_eq!(learned(&place, "over"), learned(&place, "inside"));
}

#[test]
fn mistakes_are_answered() {
    let place = maths();
    let team = place.read("team.toml");
    for (old, new, said) in [
        ("relevo-lm-1", "relevo-lm-9", "the model in the box is \"relevo-lm-1\""),
        ("model = \"relevo-lm-1\"", "model = \"relevo-lm-1\"\nurl = \"http://127.0.0.1:1/\"", "needs no url"),
        ("\"high-school\"", "\"high-scool\"", "did you mean \"high-school\"?"),
        ("forwards = true", "forwards = true\nmodel = \"box\"", "only forwards"),
        ("[problems]", "[simulate]\nenvironment = \"maths@1\"\n[problems]", "not both"),
    ] {
        place.write("wrong.toml", &team.replacen(old, new, 1));
        assert_holds(&place.error("learn wrong.toml"), &["wrong.toml:", said]);
    }
    assert_holds(&place.error("learn team.toml --model relevo::x"), &["--model relevo::x", "did you mean"]);
}
