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
    let doctor = relevo("doctor");
    signal(&server, "INT");
    let ended = Said::new(server.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_holds(&said.stdout, &["learned workflow", "    [editor]\n    Answer: "]);
    assert!(!said.stdout.contains("taint") && !said.stderr.contains("taint"));
    assert_eq!(wrong.code, Some(1), "{}", wrong.stdout);
    assert_holds(&wrong.stderr, &["there is \"relevo-lm-1\"", "Nothing was begun"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_holds(&ended.stderr, &["relevo-lm-1 (", "requests were answered"]);
    assert_eq!(doctor.code, Some(0), "{}", doctor.stdout);
    assert_holds(
        &doctor.stdout,
        &[
            "relevo-lm-1 answers",
            &format!("{url} serves relevo-lm-1"),
            "OPENAI_API_KEY (openai",
            "--model openai::relevo-lm-1",
        ],
    );
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

    place.write("none", "no weights");
    for (arguments, said) in [
        ("lm ask hello", "\"hello\": options are made only"),
        ("lm ask 7/2 --options 3,4", "no character '/'"),
        ("lm ask 2+2 --options 4", "two to five"),
        ("lm ask 2+2 --check Z", "`Z` is not among the options"),
        ("lm ask 2+2 --check B --skill answer", "--skill check"),
        ("lm ask 2+2 --model none", "none: these are no weights"),
        ("lm train --resume --out gone", "gone: there is no training to go on with"),
        ("lm train --out none/x", "none/x: it cannot be read or written"),
    ] {
        assert_holds(&place.error(arguments), &[said]);
    }
    assert_holds(&place.data("lm ask 2+2 --check B"), &["What is 2+2?\nA) ", "The answer B is "]);
}

/// What can be had on a machine, and that no value of a variable is shown.
#[test]
fn the_doctor_says_what_runs_without_a_key() {
    let place = maths();
    let doctor = |arguments: &str, variables: &[(&str, &str)]| {
        let mut command = place.command(arguments);
        let said = Said::new(command.env_clear().envs(variables.iter().copied()).output().unwrap());
        assert!(!said.stdout.contains("taint") && !said.stderr.contains("taint"), "{}", said.stdout);
        (said.code, said.stdout)
    };
    let nobody = "http://127.0.0.1:1/v1";
    let (code, said) = doctor("doctor", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_holds(
        &said,
        &["relevo-lm-1 answers", "not set; it names a server", "none, neither in the environment"],
    );
    assert_holds(&said, &["with no key and no network", "relevo learn examples/maths/team.toml"]);

    place.write(".env", "ANTHROPIC_API_KEY=sk-taint-1");
    let (code, said) = doctor("doctor", &[("GROQ_API_KEY", "sk-taint-2"), ("OPENAI_BASE_URL", nobody)]);
    assert_eq!(code, Some(1), "{said}");
    assert_holds(&said, &[nobody, "no connection can be made", "1 of 5 failed", "--model groq::NAME"]);
    assert_holds(&said, &["ANTHROPIC_API_KEY (anthropic, from .env), GROQ_API_KEY (groq)"]);
    assert!(!said.contains("--model anthropic"), "the file counts beside a team alone: {said}");
    let (code, said) = doctor("doctor", &[("OPENAI_BASE_URL", "http://ann:taint@x/")]);
    assert!(code == Some(1) && said.contains("url must hold no user"), "{said}");
    place.write(".env", "sk-taint-1");
    let (code, said) = doctor("doctor", &[]);
    assert!(code == Some(1) && said.contains("is not NAME=value"), "{said}");

    // The box stands in for another model where it can read the tasks.
    fs::remove_file(place.path(".env")).unwrap();
    let other = format!("provider = \"openai\"\nurl = {nobody:?}\nretries = 0");
    place.write("team.toml", &place.read("team.toml").replace("provider = \"relevo-lm\"", &other));
    let (code, said) = doctor("doctor team.toml", &[("OPENAI_API_KEY", "sk-taint-3")]);
    assert_eq!(code, Some(1), "{said}");
    assert_holds(&said, &["openai at http://127.0.0.1:1/v1/, key in OPENAI_API_KEY (set)", "1 of 4 failed"]);
    assert_holds(&said, &["relevo learn team.toml --model relevo-lm::relevo-lm-1"]);
    place.ok("learn team.toml --model relevo-lm::relevo-lm-1 --episodes 4");
}
