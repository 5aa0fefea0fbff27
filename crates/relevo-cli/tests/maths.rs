//! `examples/maths`: a team of real, small language models learns out of the box, without a key or a network.

mod place;

use std::{fs, path::Path};

use place::{Place, assert_holds};
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
    let learned = |run: &str| {
        let policy: Value = serde_json::from_str(&place.read(&format!("{run}/policy.json"))).unwrap();
        policy["agents"].clone()
    };
    assert_eq!(learned("one"), learned("two"), "64 at a time, in rounds");
    assert_holds(&place.data("doctor team.toml"), &["relevo-lm-1 answers", "problems"]);
    place.write("problem", "What is 45 + 38?\nA) 73 B) 83 C) 84 D) 93");
    let said = place.relevo("run team.toml --policy one --input problem --output out");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_holds(&place.read("out"), &["What is 45 + 38?", "[editor]\nAnswer: "]);
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
