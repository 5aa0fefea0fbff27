//! Generated corpora: what is asked can be answered from the documents and from them alone, by whoever reads them; and the
//! scripted models answer by what they are given.

use std::collections::BTreeSet;

use relevo::{
    agent::{Agent, Ending, HandoffLabel, OperationCall, Outcome, model::ModelAgent},
    artifact::Artifact,
    coordinate::{
        document::{Document as Handoff, Evidence, Support},
        plan::Role,
    },
    judge::{Expectation, rule::Rule},
    model::{Models, Price, environment::Environment},
    team::ReplyForm,
};
use relevo_lab::{
    corpus::{
        Class, Corpus, CorpusTask, Document, Kind, NOT_STATED, Question,
        models::{Faults, Scripted},
        reading::Facts,
        recall,
        search::Index,
        vocabulary::Vocabulary,
    },
    model_server::ModelServer,
};
use serde_json::Value;

/// What follows from documents, read by somebody who knows nothing of how they were made.
fn read<'d>(question: &Question, documents: impl IntoIterator<Item = &'d Document>) -> String {
    let facts = Facts::read(Vocabulary::of(question.kind), documents.into_iter().map(|d| d.text.as_str()));
    facts.answer(question).unwrap_or_else(|| NOT_STATED.to_owned())
}

/// The lines of a task file by the names of the tasks.
fn expectations(corpus: &Corpus, file: &str) -> Vec<(String, Expectation)> {
    let files = corpus.files();
    let (_, text) = files.iter().find(|(path, _)| path == file).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let expect = line["expect"].as_object().unwrap().clone();
        (line["id"].as_str().unwrap().to_owned(), Expectation(expect))
    };
    text.lines().map(line).collect()
}

#[test]
fn a_seed_determines_every_byte() {
    let files = |kind, seed| Corpus::new(kind, seed, 24, 16).files();
    for kind in Kind::ALL {
        assert_eq!(files(kind, 3), files(kind, 3));
        assert_ne!(files(kind, 3), files(kind, 4));
    }
    assert_ne!(files(Kind::Incident, 3), files(Kind::Advisory, 3));
}

#[test]
fn keys_are_what_the_documents_say() {
    for (kind, seed) in Kind::ALL.into_iter().flat_map(|kind| [(kind, 0), (kind, 1000), (kind, 7)]) {
        let corpus = Corpus::new(kind, seed, 80, 40);
        let tasks = || corpus.train.iter().chain(&corpus.test);
        let keys = [expectations(&corpus, "train.jsonl"), expectations(&corpus, "test.jsonl")].concat();
        assert_eq!(tasks().count(), 120);
        let words = Vocabulary::of(kind);
        let known = Facts::read(words, corpus.documents.iter().map(|d| d.text.as_str()));
        let questions: BTreeSet<String> = tasks().map(|task| task.question.text()).collect();
        assert_eq!(questions.len(), 120, "no question comes twice");
        for (task, (id, key)) in tasks().zip(&keys) {
            let text = task.question.text();
            assert_eq!((&task.id, Question::parse(&text).as_ref()), (id, Some(&task.question)));
            let score = |answer: &str| Rule::Regex.score(key, answer.as_bytes()).unwrap().quality;
            let read_all = known.answer(&task.question).unwrap_or_else(|| NOT_STATED.to_owned());
            assert_eq!((&read_all, score(&read_all)), (&task.answer, 1.0), "{kind:?} {seed} {text}");
            assert_eq!(score(&format!(" \"{}\".\n", task.answer)), 1.0);
            // Who has read nothing can say just that.
            let unread = f64::from(u8::from(task.question.class == Class::OutOfCorpus));
            assert_eq!(score(&read(&task.question, [])), unread, "{text}");
            // Nor is a wrong answer right that somebody could take for it.
            let wrong = known.distractors(&task.question);
            assert!(!wrong.is_empty() && wrong.iter().all(|answer| score(answer) == 0.0), "{text} {wrong:?}");
        }
        for class in Class::ALL {
            assert_eq!(tasks().filter(|task| task.question.class == class).count(), 15);
        }
    }
}

/// The documents, of those that name what is asked about or who or what that leads to, without which the answer does not
/// follow from the rest.
fn needed(task: &CorpusTask, documents: &[Document]) -> usize {
    let about = &task.question.about;
    let names = |d: &&Document| about.iter().chain([&task.answer]).any(|name| d.text.contains(name.as_str()));
    let documents: Vec<&Document> = documents.iter().filter(names).collect();
    let rest = |out: usize| documents.iter().enumerate().filter(move |(at, _)| *at != out).map(|(_, d)| *d);
    (0..documents.len()).filter(|at| read(&task.question, rest(*at)) != task.answer).count()
}

#[test]
fn classes_need_as_many_documents_as_they_say() {
    let corpus = Corpus::new(Kind::Incident, 1, 16, 8);
    for task in &corpus.test {
        let (least, most) = match task.question.class {
            Class::OutOfCorpus => (0, 0),
            Class::Procedural | Class::SingleDocument => (1, 1),
            Class::CrossDocument | Class::Derivative | Class::Mitigation | Class::Pair => (1, 2),
            Class::Synthesis => (3, 6),
        };
        let needed = needed(task, &corpus.documents);
        assert!((least..=most).contains(&needed), "{} needs {needed}", task.id);
    }
}

#[test]
fn a_second_search_goes_on_where_the_first_ended() {
    for kind in Kind::ALL {
        let corpus = Corpus::new(kind, 5, 160, 8);
        let index = Index::new(&corpus.documents);
        let of_class = |class| corpus.train.iter().filter(move |t| t.question.class == class);
        let found = |task: &CorpusTask, searches: &[usize]| {
            let goal = Some(task.question.text());
            let mut document = Handoff { subproblem: goal.clone(), goal, ..Handoff::default() };
            searches.iter().for_each(|most| recall(&index, &mut document, *most));
            assert_eq!(document.evidence.len(), searches.iter().sum::<usize>());
            let there = |d: &&Document| document.evidence.iter().any(|e| e.source == d.id);
            read(&task.question, corpus.documents.iter().filter(there)) == task.answer
        };
        let answered = |class, searches: &[usize]| of_class(class).filter(|t| found(t, searches)).count();
        assert_eq!(answered(Class::SingleDocument, &[4]), 20);
        assert_eq!(answered(Class::CrossDocument, &[4]), 0, "who is responsible is on another page");
        let followed = answered(Class::CrossDocument, &[4, 10]);
        assert!(followed >= 5, "{kind:?} {followed}");
        assert!(answered(Class::Synthesis, &[10]) > answered(Class::Synthesis, &[4]));
    }
}

/// What agents of a role and a model make of a document, over HTTP, one task after the other.
async fn performed(server: &ModelServer, model: &str, role: Role, tasks: &[Handoff]) -> Vec<Outcome> {
    let sections = format!("[m]\nmodel = \"{model}\"\nretries = 0");
    let environment = Environment::only([("OPENAI_BASE_URL", &*server.url())]);
    let models = Models::new(&toml::from_str(&sections).unwrap(), &environment, 7).unwrap();
    let agent = ModelAgent {
        model: models.get("m").unwrap().model.clone(),
        price: Price::default(),
        temperature: None,
        max_tokens: None,
        reply: ReplyForm::Replace,
        role: Some(role),
        instructions: "Use nothing but the evidence.".into(),
        asked: vec![],
        tools: None,
        timeout: std::time::Duration::from_secs(20),
        output_bytes_max: 1 << 20,
        listener: Default::default(),
    };
    let mut outcomes = vec![];
    for (episode, task) in tasks.iter().enumerate() {
        let call = OperationCall {
            handoff: HandoffLabel(format!("{episode}/0/0")),
            agent: "cell",
            operation: "default",
        };
        let artifact = Artifact { facts: Default::default(), payload: task.write().into() };
        outcomes.push(agent.perform(&call, artifact).await);
    }
    outcomes
}

#[tokio::test]
async fn models_answer_by_the_evidence_in_their_prompt() {
    let corpus = Corpus::new(Kind::Advisory, 2, 160, 80);
    let scripted = Scripted::new(&corpus.documents, 9);
    let server = ModelServer::start(move |asked| scripted.reply(asked)).unwrap();
    let tasks: Vec<&CorpusTask> =
        corpus.train.iter().filter(|t| t.question.class != Class::OutOfCorpus).collect();
    let document = |task: &CorpusTask| Handoff {
        goal: Some(task.question.text()),
        subproblem: Some("Answer it.".into()),
        ..Handoff::default()
    };
    let blind: Vec<Handoff> = tasks.iter().map(|task| document(task)).collect();
    let all = corpus.documents.iter().map(|d| Evidence { source: d.id.clone(), text: d.text.clone() });
    // All that names what it is about, and the pages of those responsible and of what to do.
    let others = ["The vendor ", "Against "];
    let seeing = |task: &&CorpusTask| {
        let fits = |e: &Evidence| {
            task.question.about.iter().any(|about| e.text.contains(about.as_str()))
                || others.iter().any(|o| e.text.contains(o))
        };
        Handoff { evidence: all.clone().filter(fits).collect(), ..document(task) }
    };
    let seeing: Vec<Handoff> = tasks.iter().map(seeing).collect();

    let right = |outcomes: &[Outcome]| {
        let answers =
            outcomes.iter().map(|o| Handoff::parse(&o.artifact.payload).unwrap().draft_answer.unwrap());
        answers.zip(&tasks).filter(|(answer, task)| *answer == task.answer).count() as f64
            / tasks.len() as f64
    };
    let solve = async |model, documents| performed(&server, model, Role::Solver, documents).await;
    let [without, small, large] = [
        right(&solve("scripted-large", &blind).await),
        right(&solve("scripted-small", &seeing).await),
        right(&solve("scripted-large", &seeing).await),
    ];
    assert!(without < 0.15, "{without}: who is given nothing knows next to nothing");
    assert!(small > 0.5 && large > small + 0.05, "{small} {large}");
    // The same question is answered alike, whenever it comes.
    let payloads =
        |outcomes: Vec<Outcome>| outcomes.into_iter().map(|o| o.artifact.payload).collect::<Vec<_>>();
    let [once, again] =
        [solve("scripted-small", &seeing).await, solve("scripted-small", &seeing).await].map(payloads);
    assert_eq!(once, again);

    // Verifiers hold a draft against the evidence.
    let drafted = |answer: &dyn Fn(&CorpusTask) -> String| -> Vec<Handoff> {
        let with = |(d, t): (&Handoff, &&CorpusTask)| Handoff { draft_answer: Some(answer(t)), ..d.clone() };
        seeing.iter().zip(&tasks).map(with).collect()
    };
    let doubted = async |documents: Vec<Handoff>| {
        let outcomes = performed(&server, "scripted-large", Role::Verifier, &documents).await;
        let status = |o: &Outcome| Handoff::parse(&o.artifact.payload).unwrap().verification.unwrap().status;
        outcomes.iter().filter(|o| status(o) == Support::Unsupported).count() as f64 / tasks.len() as f64
    };
    let [of_right, of_wrong] = [
        doubted(drafted(&|t: &CorpusTask| t.answer.clone())).await,
        doubted(drafted(&|_: &CorpusTask| "nonsense".into())).await,
    ];
    assert!(of_right < 0.1 && of_wrong > 0.75, "{of_right} {of_wrong}");
}

#[tokio::test]
async fn faults_are_made_as_often_as_they_are_asked_for() {
    let corpus = Corpus::new(Kind::Incident, 2, 160, 8);
    let failed = async |rate| {
        let scripted = Scripted::new(&corpus.documents, 4).faulty(Faults { rate });
        let server = ModelServer::start(move |asked| scripted.reply(asked)).unwrap();
        let goal = |task: &CorpusTask| Handoff { goal: Some(task.question.text()), ..Handoff::default() };
        let tasks: Vec<Handoff> = corpus.train.iter().map(goal).collect();
        let outcomes = performed(&server, "scripted-fast", Role::Planner, &tasks).await;
        let kind = |outcome: Outcome| match outcome.ending {
            Ending::Done => None,
            Ending::Failed(failure) => Some(format!("{:?}", failure.kind())),
        };
        outcomes.into_iter().filter_map(kind).collect::<Vec<String>>()
    };
    assert!(failed(0.0).await.is_empty());
    let half = failed(0.5).await;
    assert!((60..=100).contains(&half.len()), "{} of 160", half.len());
    for expected in ["Unavailable", "RateLimit", "Garbage"] {
        assert!(half.iter().any(|kind| kind == expected), "{expected} in {half:?}");
    }
}
