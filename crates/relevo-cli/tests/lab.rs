//! `relevo lab` as a person meets it: results that are kept, gathered, gone on with, and refused when damaged.

mod place;

use std::{fs, thread, time::Duration};

use place::{Place, Said, assert_holds, signal};
use relevo_lm::{Level, Problem, Split, serve::Serving};

/// The smallest experiment that there is.
const SMALL: &str = "lab run t1 --quick --seeds 0..2 --jobs 1";

#[test]
fn an_experiment_leaves_its_report_and_everything_raw() {
    let place = Place::new();
    assert_holds(&place.ok("lab list"), &["chain", "t1", "what it asks"]);
    let out = place.ok(SMALL);
    assert_holds(&out, &["Pearson"]);
    let folder = place.path("runs/lab/t1");
    assert_eq!(place.files("runs/lab/t1"), ["report.md", "results.json", "t1.png", "t1.svg"]);
    assert!(fs::read(folder.join("t1.png")).unwrap().starts_with(b"\x89PNG"));
    assert_holds(
        &place.read("runs/lab/t1/report.md"),
        &["**Claim.**", "refute", "relevo lab run t1 --seeds 0..2 --quick"],
    );
    let results: serde_json::Value = serde_json::from_str(&place.read("runs/lab/t1/results.json")).unwrap();
    assert_eq!(results["schema"], "relevo.lab-results/v1");
    assert_eq!(results["origin"]["seeds"], serde_json::json!([0, 2]));
    assert!(!results["findings"]["raw"].as_array().unwrap().is_empty());
    // The same seeds give the same results, whatever the number of threads.
    place.ok(&format!("{} --out again", SMALL.replace("--jobs 1", "--jobs 2")));
    let again: serde_json::Value = serde_json::from_str(&place.read("again/t1/results.json")).unwrap();
    assert_eq!(results["findings"], again["findings"]);
}

#[test]
fn results_are_gathered_into_one_page_and_damaged_ones_named() {
    let place = Place::new();
    assert_holds(&place.error("lab report"), &["runs/lab", "cannot be read"]);
    fs::create_dir_all(place.path("runs/lab")).unwrap();
    assert_holds(&place.error("lab report"), &["no results", "relevo lab run all --quick"]);
    place.ok(SMALL);
    place.ok("lab report");
    let page = place.read("runs/lab/report.html");
    assert_holds(&page, &["<h2>t1", "<svg", "Claim", "0..2"]);
    assert!(!page.contains("src=") && !page.contains("http-equiv"), "it needs nothing besides itself");
    fs::create_dir_all(place.path("runs/lab/broken")).unwrap();
    fs::write(place.path("runs/lab/broken/results.json"), "{\"schema\": ").unwrap();
    let Said { code, stderr: err, .. } = place.relevo("lab report");
    assert_eq!(code, Some(1));
    assert_holds(&err, &["broken/results.json", "damaged", "line 1", "1 experiments in"]);
    assert_holds(&place.read("runs/lab/report.html"), &["<h2>t1"]);
}

#[test]
fn ctrl_c_keeps_what_is_finished() {
    let place = Place::new();
    place.ok(SMALL);
    let whole = place.read("runs/lab/t1/results.json");
    let child = place.command("lab run t1 --quick --seeds 0..9000 --jobs 1").spawn().unwrap();
    // Long enough for some of its 9000 runs, far too short for all.
    thread::sleep(Duration::from_secs(2));
    signal(&child, "INT");
    let Said { code, stderr: err, .. } = Said::new(child.wait_with_output().unwrap());
    assert_eq!(code, Some(130));
    assert_holds(&err, &["stopped", "runs/lab"]);
    assert_eq!(place.read("runs/lab/t1/results.json"), whole, "what was whole stays");
    assert_holds(&place.read("runs/lab/t1/partial/report.md"), &["partial"]);
    fs::remove_file(place.path("runs/lab/t1/results.json")).unwrap();
    place.ok("lab report");
    assert_holds(&place.read("runs/lab/report.html"), &["<td>partial</td>"]);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_run() {
    let place = Place::new();
    assert_holds(&place.error("lab run t7"), &["no experiment \"t7\"", "did you mean \"t1\"?"]);
    for seeds in ["7", "5..5", "9..3", "a..b", "0..3000000000"] {
        let said = place.relevo(&format!("lab run t1 --seeds {seeds}"));
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{seeds}");
        assert_holds(&said.stderr, &["--seeds", seeds]);
    }
    fs::write(place.path("file"), "").unwrap();
    assert_holds(
        &place.error("lab run all --quick --out file"),
        &["file/certify", "cannot be written", "--out"],
    );
    assert_holds(&place.error("lab play math"), &["no environment \"math\"", "did you mean \"maths@1\"?"]);
}

#[test]
fn episodes_can_be_looked_at() {
    let place = Place::new();
    assert_holds(&place.ok("lab play"), &["chain@1", "maths@1", "routing@1", "synthetic@1"]);
    let text = place.ok("lab play maths --seed 3");
    assert_holds(&text, &["maths@1, seed 3", "commissioner sees", "may choose", "Over after"]);
    assert_eq!(text, place.ok("lab play maths@1 --seed 3"));
}

/// The language model in the box, served like any other, on problems of a file in the form of MMLU.
#[test]
fn the_mathematics_team_goes_on_other_models_and_public_files() {
    let server = Serving::start(0).unwrap();
    let place = Place::new();
    place.write(".env", &format!("OPENAI_BASE_URL={}\nOPENAI_API_KEY=none\n", server.url()));
    let line = |i| {
        let Problem { question, options, key, .. } =
            Problem::generate(Split::Evaluation, Level::Elementary, 9, i);
        format!("\"{question}\",{},{key}\n", options.join(","))
    };
    place.write("mine.csv", &(0..24).map(line).collect::<String>());
    let run = "lab run maths-lm --quick --seeds 0..2 --dataset mine --file mine.csv --model relevo-lm-1";
    let out = place.ok(run);
    assert_holds(&out, &["direct", "CoT", "combine-E", "learned workflow", "mine"]);
    assert_holds(
        &place.read("runs/lab/maths-lm/report.md"),
        &["--dataset mine", "relevo-lm-1 (openai)", "0 calls failed"],
    );
    // Nothing is asked twice: eleven questions a problem, and whether the model is there.
    assert!(server.answered() <= 1 + 11 * 24, "{}", server.answered());
    // Conversations are kept, and not held again, nor is one that was being written when the process was killed.
    let kept = place.read("runs/lab/maths-lm/conversations.jsonl");
    assert_eq!(kept.lines().count(), 1 + 24);
    let (whole, torn) =
        (kept.lines().take(21).collect::<Vec<_>>().join("\n"), &kept.lines().last().unwrap()[..40]);
    place.write("runs/lab/maths-lm/conversations.jsonl", &format!("{whole}\n{torn}"));
    let results =
        || serde_json::from_str::<serde_json::Value>(&place.read("runs/lab/maths-lm/results.json")).unwrap();
    let first = results();
    place.ok(run);
    assert_eq!(first["findings"], results()["findings"]);
    let again = place.read("runs/lab/maths-lm/conversations.jsonl");
    assert!(again.starts_with(&whole));
    assert_eq!(again.lines().count(), 21 + 1 + 4, "the torn line, and the four that were missing");
    // What is missing is said before anything is asked.
    for (arguments, parts) in [
        ("lab run t1 --model m", &["maths-lm", "leave them out"][..]),
        ("lab run maths-lm --dataset x --file none.csv", &["none.csv", "cannot be read"]),
        ("lab run maths-lm --model nobody::m", &["nobody", "provider"]),
        ("lab run maths-lm --model openai::gone", &["gone", "does not answer"]),
    ] {
        assert_holds(&place.error(arguments), parts);
    }
}
