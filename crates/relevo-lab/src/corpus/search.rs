//! Search over a corpus: BM25 on words. It is a function of the documents and the query.

use bm25::{Embedder, EmbedderBuilder, Scorer, Tokenizer};

use super::Document;

/// A document that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit<'d> {
    /// The document.
    pub document: &'d Document,
    /// How well it fits; the greater the better.
    pub score: f32,
}

/// Words that tell nothing of what a text is about.
const STOP_WORDS: [&str; 40] = [
    "a",
    "after",
    "against",
    "all",
    "alone",
    "an",
    "and",
    "answer",
    "are",
    "as",
    "at",
    "be",
    "by",
    "do",
    "does",
    "documents",
    "for",
    "given",
    "how",
    "in",
    "is",
    "it",
    "many",
    "must",
    "not",
    "of",
    "on",
    "or",
    "say",
    "that",
    "the",
    "to",
    "value",
    "was",
    "what",
    "where",
    "which",
    "who",
    "whom",
    "with",
];

/// The words of a text: letters and digits with hyphens between, in small letters. Names of subjects are whole words.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '-').map(|word| word.trim_matches('-'));
    let words = words.filter(|word| !word.is_empty()).map(str::to_lowercase);
    words.filter(|word| STOP_WORDS.binary_search(&word.as_str()).is_err())
}

struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        words(text).collect()
    }
}

/// An index of documents.
pub struct Index<'d> {
    documents: &'d [Document],
    embedder: Embedder<u32, Words>,
    scorer: Scorer<usize, u32>,
}

impl<'d> Index<'d> {
    /// Index documents: their titles, which count twice, and their texts.
    pub fn new(documents: &'d [Document]) -> Self {
        let texts: Vec<String> =
            documents.iter().map(|d| format!("{0}\n{0}\n{1}", d.title, d.text)).collect();
        let corpus: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embedder =
            EmbedderBuilder::<u32, Words>::with_tokenizer_and_fit_to_corpus(Words, &corpus).build();
        let mut scorer = Scorer::new();
        corpus.iter().enumerate().for_each(|(at, text)| scorer.upsert(&at, embedder.embed(text)));
        Index { documents, embedder, scorer }
    }

    /// How many documents have a word.
    pub(super) fn frequency(&self, word: &str) -> usize {
        self.scorer.matches(&self.embedder.embed(word)).len()
    }

    /// The documents that fit a query best, at most `most` of them, the best first.
    pub fn search(&self, query: &str, most: usize) -> Vec<Hit<'d>> {
        let mut found = self.scorer.matches(&self.embedder.embed(query));
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        let found = found.into_iter().take(most);
        found.map(|scored| Hit { document: &self.documents[scored.id], score: scored.score }).collect()
    }
}
