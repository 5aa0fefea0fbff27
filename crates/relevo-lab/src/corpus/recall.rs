//! What a cell that searches adds to the handoff document.

use std::collections::{BTreeMap, BTreeSet};

use relevo::coordinate::document::{Document, Evidence, LIST_MAX};

use super::search::{Index, words};

/// How many words of each document that is there already are looked for besides.
const FOLLOWED: usize = 6;

/// Add the `most` documents that fit best and are not among the evidence yet. What is looked for is the goal and the
/// subproblem, and the rarest words of the evidence, so that a second search goes on where the first ended.
pub fn recall(index: &Index<'_>, document: &mut Document, most: usize) {
    let there: BTreeSet<String> = document.evidence.iter().map(|found| found.source.clone()).collect();
    let asked = [&document.goal, &document.subproblem];
    let mut query: Vec<String> = asked.into_iter().flatten().flat_map(|text| words(text)).collect();
    let asked: BTreeSet<String> = query.iter().cloned().collect();
    let mut frequencies = BTreeMap::new();
    for found in &document.evidence {
        let mut new: Vec<String> = words(&found.text).filter(|word| !asked.contains(word)).collect();
        new.sort_by_cached_key(|word| {
            let n = *frequencies.entry(word.clone()).or_insert_with(|| index.frequency(word));
            (n, word.clone())
        });
        new.dedup();
        // A word of one document leads nowhere else.
        query.extend(new.into_iter().filter(|word| frequencies[word] > 1).take(FOLLOWED));
    }
    let hits = index.search(&query.join(" "), most + there.len());
    let new = hits.into_iter().filter(|hit| !there.contains(&hit.document.id)).take(most);
    let room = LIST_MAX.saturating_sub(document.evidence.len());
    let evidence = |page: &super::Document| Evidence { source: page.id.clone(), text: page.text.clone() };
    document.evidence.extend(new.take(room).map(|hit| evidence(hit.document)));
}
