//! Multiple-choice problems of public files, through the team file's section `[problems]`.

use std::fs;

use relevo::{
    problems::Problems,
    tasks::{Task, TaskSource},
    team::ProblemsSection,
};
use tempfile::TempDir;

/// The problems of one file of this name and text.
fn open(name: &str, text: &str) -> Result<Problems, String> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    let files = [("given".to_owned(), name.into())].into();
    Problems::new(&ProblemsSection { levels: vec![], files }, folder.path()).map_err(|e| e.to_string())
}

/// All tasks, those to learn on first; each as its text with the right letter behind it, in alphabetical order.
fn tasks(problems: &Problems) -> (Vec<String>, Vec<String>) {
    let told = |task: Task| {
        let key = task.expected.as_ref().unwrap().0["text"].as_str().unwrap().to_owned();
        assert_eq!(format!("{:?}", task.artifact.facts["dataset"]), "Text(\"given\")");
        format!("{} {key}", str::from_utf8(&task.artifact.payload).unwrap())
    };
    let measuring = (0..).map_while(|i| problems.evaluation(i).unwrap()).map(told);
    let learning = (0..problems.training_count().unwrap()).map(|i| told(problems.training_at(i).unwrap()));
    let sorted = |mut texts: Vec<String>| {
        texts.sort();
        texts
    };
    (sorted(learning.collect()), sorted(measuring.collect()))
}

#[test]
fn public_forms_are_read() {
    let math_qa = r#"[
        {"Problem": "the cost of 3 pens is\n rs . 5,000 ?", "Rationale": "\"never seen\"", "correct": "b",
         "options": "a ) rs . 5,000 , b ) rs . 7,500 , c ) data inadequate , d ) 0 , e ) none of these",
         "category": "gain", "annotated_formula": "add(1, 2)", "linear_formula": ""},
        {"Problem": "what is 1 + 1 ?", "Rationale": "", "correct": "a", "options": "['a ) 2', 'b ) 3', 'c ) 4']"},
        {"Problem": "what is 2 + 1 ?", "Rationale": "", "correct": "C", "options": "a) 1, b) 2, c) 3"},
        {"Problem": "what is 3 + 1 ?", "Rationale": "", "correct": "d", "options": "a ) 1 , b ) 2 , c ) 3 , d ) 4"}
    ]"#;
    let expected = [
        "the cost of 3 pens is rs . 5,000 ?\nA) rs . 5,000 B) rs . 7,500 C) data inadequate D) 0 E) none of these B",
        "what is 1 + 1 ?\nA) 2 B) 3 C) 4 A",
        "what is 2 + 1 ?\nA) 1 B) 2 C) 3 C",
        "what is 3 + 1 ?\nA) 1 B) 2 C) 3 D) 4 D",
    ];
    let mmlu_csv = "What is 1 + 1?,2,3,4,5,A\n\"A \"\"set\"\", as it\nis called,\",1,\"2, 3\",3,4,B\nWhat is 2 + 1?,2,3,4,5,B\n\
                    What is 3 + 1?,2,3,4,5,C\n";
    let of_csv = [
        "A \"set\", as it is called,\nA) 1 B) 2, 3 C) 3 D) 4 B",
        "What is 1 + 1?\nA) 2 B) 3 C) 4 D) 5 A",
        "What is 2 + 1?\nA) 2 B) 3 C) 4 D) 5 B",
        "What is 3 + 1?\nA) 2 B) 3 C) 4 D) 5 C",
    ];
    let mmlu_json = r#"[{"question": "What is 1 + 1?", "choices": ["2", "3", "4", "5"], "answer": 0, "subject": "x"},
        {"question": "What is 2 + 1?", "choices": ["2", "3", "4", "5"], "answer": 1},
        {"question": "What is 3 + 1?", "choices": ["2", "3", "4", "5"], "answer": 2},
        {"question": "A \"set\", as it is called,", "choices": ["1", "2, 3", "3", "4"], "answer": 1}]"#;
    for (name, text, expected) in
        [("m.json", math_qa, expected), ("m.csv", mmlu_csv, of_csv), ("n.json", mmlu_json, of_csv)]
    {
        let problems = open(name, text).unwrap();
        let (learning, measuring) = tasks(&problems);
        assert!(!learning.is_empty() && !measuring.is_empty(), "{name}");
        let mut all = [learning, measuring].concat();
        all.sort();
        assert_eq!(all, expected, "{name}: every problem is in one half");
        assert_ne!(problems.identity(), open("m.csv", &mmlu_csv.replace("What", "what")).unwrap().identity());
        let mut task = problems.training_at(0).unwrap();
        let key = task.expected.as_ref().unwrap().0["text"].as_str().unwrap().to_owned();
        assert_eq!(problems.quality(&task, &task.artifact), Some(0.0));
        let said = [&task.artifact.payload[..], format!("\n\n[editor]\nAnswer: {key}").as_bytes()].concat();
        task.artifact.payload = said.into();
        assert_eq!(problems.quality(&task, &task.artifact), Some(1.0));
    }
}

#[test]
fn what_is_no_problem_is_refused_with_its_place() {
    let entry = r#"{"Problem": "1 + 1 ?", "Rationale": "", "correct": "a", "options": "a ) 2 , b ) 3"}"#;
    let six = "a ) 1 , b ) 2".to_owned();
    for (name, text, part) in [
        ("p.txt", String::new(), ".json (MathQA, MMLU)"),
        ("p.json", "{".into(), "no list of problems"),
        ("p.json", "[]".into(), "holds no problems"),
        ("p.json", format!("[{entry}]"), "too few problems"),
        ("p.json", format!("[{entry}, {{}}]"), "problem 2: problems have Problem, options and correct"),
        ("p.json", format!("[{}]", entry.replace("\"a\"", "\"x\"")), "problem 1: correct is no letter"),
        ("p.json", format!("[{}]", entry.replace("\"a\"", "\"c\"")), "would be option 3, of 2"),
        ("p.json", format!("[{}]", entry.replace("a ) 2 , b ) 3", "2 or 3")), "it has 0 options"),
        ("p.json", format!("[{}]", entry.replace("1 + 1 ?", " ")), "the question is empty"),
        ("p.json", format!("[{}]", entry.replace("1 + 1 ?", &six.repeat(2000))), "longer than"),
        ("p.csv", "one?,1,2,A\ntwo?,1,2,x\n".into(), "line 2: its last field is no letter"),
        ("p.csv", "one?\n".into(), "line 1: it has no question, options and letter"),
        ("p.csv", "one?,1,2,3,4,5,6,A\n".into(), "line 1: it has 6 options"),
    ] {
        let told = open(name, &text).err().unwrap_or_default();
        assert!(told.contains(part) && told.contains(name) && told.len() < 500, "{text:?}: {told}");
    }
    let missing =
        ProblemsSection { levels: vec![], files: [("x".to_owned(), "not-there.csv".into())].into() };
    let told = Problems::new(&missing, std::path::Path::new("/")).err().unwrap().to_string();
    assert!(told.contains("not-there.csv") && told.contains("cannot be read"), "{told}");
}

/// Two files of different lengths: all problems come, in turn as long as there are any.
#[test]
fn datasets_come_in_turn() {
    let folder = TempDir::new().unwrap();
    for (name, count) in [("a.csv", 12), ("b.csv", 30)] {
        let lines = (0..count).map(|i| format!("What is {i} of {name}?,1,2,A\n"));
        fs::write(folder.path().join(name), lines.collect::<String>()).unwrap();
    }
    let files = ["a", "b"].map(|name| (name.to_owned(), format!("{name}.csv").into())).into();
    let problems = Problems::new(&ProblemsSection { levels: vec![], files }, folder.path()).unwrap();
    let ids: Vec<String> = (0..).map_while(|i| problems.evaluation(i).unwrap()).map(|task| task.id).collect();
    let of = |name: &str| ids.iter().filter(|id| id.starts_with(name)).count();
    assert_eq!(of("a") + of("b") + problems.training_count().unwrap() as usize, 42);
    let (short, long) = (of("a"), of("b"));
    assert!(short > 0 && long > short);
    assert!(ids[..2 * short].iter().enumerate().all(|(i, id)| id.starts_with(["a", "b"][i % 2])), "{ids:?}");
    assert!(ids[2 * short..].iter().all(|id| id.starts_with('b')), "{ids:?}");
}
