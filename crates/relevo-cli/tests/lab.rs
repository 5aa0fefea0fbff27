//! `relevo lab` as a person meets it: results that are kept, gathered, gone on with, and refused when damaged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// The smallest experiment that there is.
const SMALL: &str = "lab run t1 --quick --seeds 0..2 --jobs 1";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Exit code, standard output, standard error.
    fn relevo(&self, arguments: &str) -> (i32, String, String) {
        said(self.command(arguments).output().unwrap())
    }

    fn ok(&self, arguments: &str) -> String {
        let (code, out, err) = self.relevo(arguments);
        assert_eq!(code, 0, "{arguments}: {err}");
        out
    }

    fn error(&self, arguments: &str) -> String {
        let (code, out, err) = self.relevo(arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{arguments}: {err}");
        assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
        err
    }
}

fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code().unwrap(), out, err)
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "it does not say {part:?}: {text}");
    }
}

fn files(folder: &Path) -> Vec<String> {
    let name = |e: fs::DirEntry| e.file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| name(e.unwrap())).collect();
    names.sort();
    names
}

#[test]
fn an_experiment_leaves_its_report_and_everything_raw() {
    let place = Place::new();
    holds(&place.ok("lab list"), &["chain", "t1", "what it asks"]);
    let out = place.ok(SMALL);
    holds(&out, &["Pearson"]);
    let folder = place.path("runs/lab/t1");
    assert_eq!(files(&folder), ["report.md", "results.json", "t1.png", "t1.svg"]);
    assert!(fs::read(folder.join("t1.png")).unwrap().starts_with(b"\x89PNG"));
    holds(
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
    holds(&place.error("lab report"), &["runs/lab", "cannot be read"]);
    fs::create_dir_all(place.path("runs/lab")).unwrap();
    holds(&place.error("lab report"), &["no results", "relevo lab run all --quick"]);
    place.ok(SMALL);
    place.ok("lab report");
    let page = place.read("runs/lab/report.html");
    holds(&page, &["<h2>t1", "<svg", "Claim", "0..2"]);
    assert!(!page.contains("src=") && !page.contains("http-equiv"), "it needs nothing besides itself");
    fs::create_dir_all(place.path("runs/lab/broken")).unwrap();
    fs::write(place.path("runs/lab/broken/results.json"), "{\"schema\": ").unwrap();
    let (code, _, err) = place.relevo("lab report");
    assert_eq!(code, 1);
    holds(&err, &["broken/results.json", "damaged", "line 1", "1 experiments in"]);
    holds(&place.read("runs/lab/report.html"), &["<h2>t1"]);
}

#[test]
fn ctrl_c_keeps_what_is_finished() {
    let place = Place::new();
    place.ok(SMALL);
    let whole = place.read("runs/lab/t1/results.json");
    let child = place.command("lab run t1 --quick --seeds 0..9000 --jobs 1").spawn().unwrap();
    // Long enough for some of its 9000 runs, far too short for all.
    thread::sleep(Duration::from_secs(2));
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(sent.success());
    let (code, _, err) = said(child.wait_with_output().unwrap());
    assert_eq!(code, 130);
    holds(&err, &["stopped", "runs/lab"]);
    assert_eq!(place.read("runs/lab/t1/results.json"), whole, "what was whole stays");
    holds(&place.read("runs/lab/t1/partial/report.md"), &["partial"]);
    fs::remove_file(place.path("runs/lab/t1/results.json")).unwrap();
    place.ok("lab report");
    holds(&place.read("runs/lab/report.html"), &["<td>partial</td>"]);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_run() {
    let place = Place::new();
    holds(&place.error("lab run t7"), &["no experiment \"t7\"", "did you mean \"t1\"?"]);
    for seeds in ["7", "5..5", "9..3", "a..b", "0..3000000000"] {
        let (code, out, err) = place.relevo(&format!("lab run t1 --seeds {seeds}"));
        assert_eq!((code, out.as_str()), (2, ""), "{seeds}");
        holds(&err, &["--seeds", seeds]);
    }
    fs::write(place.path("file"), "").unwrap();
    holds(&place.error("lab run all --quick --out file"), &["file/certify", "cannot be written", "--out"]);
    holds(&place.error("lab play math"), &["no environment \"math\"", "did you mean \"maths@1\"?"]);
}

#[test]
fn episodes_can_be_looked_at() {
    let place = Place::new();
    holds(&place.ok("lab play"), &["chain@1", "maths@1", "routing@1", "synthetic@1"]);
    let text = place.ok("lab play maths --seed 3");
    holds(&text, &["maths@1, seed 3", "commissioner sees", "may choose", "Over after"]);
    assert_eq!(text, place.ok("lab play maths@1 --seed 3"));
}
