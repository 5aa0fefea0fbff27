//! `relevo lab corpus`, `search` and `models`: generated tasks with known answers, a search over their documents, and
//! scripted models to try a team on them without a provider.

use std::{
    fs,
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use relevo::coordinate::document::Document;
use relevo_lab::{
    corpus::{
        Corpus, Kind, TASKS_MAX,
        models::{Faults, NAMES, Scripted},
        read_documents, recall,
        search::Index,
    },
    model_server::ModelServer,
};
use serde_json::json;

use super::{Fault, plain, print};
use crate::world::{self, write_file};

/// Make a corpus: documents with planted facts, tasks about them with their answers, and the team to run
///
/// All of it is generated, and nothing in it is real. The same seed makes the same files.
#[derive(Args)]
pub(crate) struct CorpusArguments {
    /// What it is about
    kind: KindName,
    /// What determines it
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// Tasks to learn on, of eight classes
    #[arg(long, value_name = "N", default_value = "160", value_parser = clap::value_parser!(u64).range(1..))]
    tasks: u64,
    /// Tasks to measure on, about other subjects
    #[arg(long, value_name = "N", default_value = "80", value_parser = clap::value_parser!(u64).range(1..))]
    tests: u64,
    /// Folder of the corpus [default: runs/KIND]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum KindName {
    /// Services, their runbooks, post-mortems and notes from on call
    Incident,
    /// Products, their advisories, patch notes and mitigations
    Advisory,
}

/// Search the documents of a corpus
///
/// With words, says what fits them best. Without, it is the program of an agent (relevo.call/v1): it adds what fits the handoff
/// document in the file `in` to its evidence.
#[derive(Args)]
pub(crate) struct SearchArguments {
    /// Folder of the corpus
    corpus: PathBuf,
    /// Words to look for
    words: Vec<String>,
    /// The most documents
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=100))]
    most: u16,
}

/// Serve scripted models for a corpus, on this machine only, until Ctrl-C
///
/// They are no language models: what they answer follows from the evidence in the prompt and from tables of how able each
/// is. They speak OpenAI's chat completions: set OPENAI_BASE_URL to what is printed.
#[derive(Args)]
pub(crate) struct ModelsArguments {
    /// Folder of the corpus
    corpus: PathBuf,
    /// Port; 0 is any that is free
    #[arg(long, value_name = "PORT", default_value = "8093")]
    port: u16,
    /// What determines the answers
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// How long an answer takes, a half more or less
    #[arg(long, value_name = "MS", default_value = "0", value_parser = clap::value_parser!(u64).range(..=600_000))]
    latency_ms: u64,
    /// The share of requests that fail: errors 500 and 429, bodies that are malformed, broken off or cut short
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    faults: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("it is from 0 to 1".to_owned()) }
}

pub(crate) fn corpus(arguments: &CorpusArguments) -> Result<ExitCode, Fault> {
    let kind = match arguments.kind {
        KindName::Incident => Kind::Incident,
        KindName::Advisory => Kind::Advisory,
    };
    let (tasks, tests) = (arguments.tasks, arguments.tests);
    if tasks.saturating_add(tests) > TASKS_MAX as u64 {
        return Err(format!(
            "{tasks} tasks to learn on and {tests} to measure on: together there are at most {TASKS_MAX}, as no two of a \
             class are about the same subject"
        )
        .into());
    }
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(kind.name()));
    let corpus = Corpus::new(kind, arguments.seed, tasks as usize, tests as usize);
    for (path, text) in corpus.files() {
        let path = out.join(path);
        let folder = path.parent().expect("it is in a folder");
        fs::create_dir_all(folder)
            .map_err(|e| format!("{}: the folder cannot be made: {e}", folder.display()))?;
        write_file(&path, text)?;
    }
    say!(
        "{}: {} generated documents, {tasks} tasks to learn on, {tests} to measure on, and a team. Serve models for it by \
         relevo lab models {0}",
        out.display(),
        corpus.documents.len()
    );
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn search(arguments: &SearchArguments) -> Result<ExitCode, Fault> {
    let documents = read_documents(&arguments.corpus)?;
    let index = Index::new(&documents);
    let most = usize::from(arguments.most);
    if arguments.words.is_empty() {
        let reply = match act(&index, most) {
            Ok(()) => json!({"ok": true}),
            Err(error) => json!({"ok": false, "kind": "invalid-request", "error": error}),
        };
        print(&format!("{reply}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let hits = index.search(&arguments.words.join(" "), most);
    for hit in &hits {
        let document = hit.document;
        print(&format!("{:.2}  {}  {}\n    {}\n", hit.score, document.id, document.title, document.text))?;
    }
    if hits.is_empty() {
        say!("no document holds any of these words");
    }
    Ok(ExitCode::SUCCESS)
}

/// The longest handoff document, in bytes, and the longest line about a call.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// What an agent does: the document is read from the file `in`, and goes with its new evidence to the file `out`.
fn act(index: &Index<'_>, most: usize) -> Result<(), String> {
    let mut call = String::new();
    io::stdin().lock().take(INPUT_BYTES_MAX).read_line(&mut call).map_err(|e| format!("the call: {e}"))?;
    let call: serde_json::Value = serde_json::from_str(&call).map_err(|e| {
        format!("what is on the standard input is no call of an agent ({e}); to search by hand, add words")
    })?;
    let named = |pointer: &str| call.pointer(pointer).and_then(|name| name.as_str()).unwrap_or_default();
    let payload = fs::File::open(named("/payload/path")).map_err(|e| format!("the payload: {e}"))?;
    let mut bytes = vec![];
    payload.take(INPUT_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| format!("the payload: {e}"))?;
    let mut document = Document::parse(&bytes).map_err(|e| e.to_string())?;
    recall(index, &mut document, most);
    fs::write(named("/output"), document.write()).map_err(|e| format!("the output: {e}"))
}

pub(crate) fn models(arguments: &ModelsArguments) -> Result<ExitCode, Fault> {
    let documents = read_documents(&arguments.corpus)?;
    let scripted = Scripted::new(&documents, arguments.seed)
        .faulty(Faults { rate: arguments.faults })
        .after(Duration::from_millis(arguments.latency_ms));
    let server = ModelServer::on_port(arguments.port, move |asked| scripted.reply(asked));
    let server = server.map_err(|e| {
        format!("port {}: it cannot be listened on: {e}; choose another with --port", arguments.port)
    })?;
    let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
    print(&format!("export OPENAI_BASE_URL={}/\n", plain(&server.url())))?;
    say!("scripted models, not language models: {}; Ctrl-C ends", names.join(", "));
    world::runtime()?.block_on(tokio::signal::ctrl_c())?;
    say!("{} requests were answered", server.requests());
    Ok(ExitCode::SUCCESS)
}
