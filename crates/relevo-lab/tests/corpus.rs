//! Generated corpora: what is asked can be answered from the documents, and from them alone.

use std::collections::BTreeSet;

use relevo::coordinate::document::Document as Handoff;
use relevo_lab::corpus::{
    Class, Corpus, Kind, NOT_STATED, Question, reading::Facts, recall, search::Index, vocabulary::Vocabulary,
};

#[test]
fn explore() {
    for kind in Kind::ALL {
        let corpus = Corpus::new(kind, 0, 160, 80);
        let index = Index::new(&corpus.documents);
        println!("{} docs {} words {:?}", kind.name(), corpus.documents.len(), corpus.documents.iter().map(|d| d.text.split(' ').count()).sum::<usize>());
        for class in Class::ALL {
            let tasks: Vec<_> = corpus.train.iter().filter(|t| t.question.class == class).collect();
            let mut line = format!("{:16}", class.name());
            for (good, plan) in [false, true].into_iter().flat_map(|g| [&[4][..], &[10], &[4, 10], &[10, 4], &[4,8]].map(|p| (g, p))) {
                let mut ok = 0;
                let mut bytes = 0;
                for task in &tasks {
                    let goal = task.question.text();
                    let sub = if good { format!("Find all that is said of {}.", task.question.about.join(" and of ")) } else { goal.clone() };
                    let mut d = Handoff { goal: Some(goal.clone()), subproblem: Some(sub), ..Handoff::default() };
                    for most in plan { recall(&index, &mut d, *most); }
                    let facts = Facts::read(Vocabulary::of(kind), d.evidence.iter().map(|e| e.text.as_str()));
                    ok += usize::from(facts.answer(&task.question).unwrap_or(NOT_STATED.into()) == task.answer);
                    bytes += d.write().len();
                }
                line += &format!(" {plan:?} {ok}/{} {}", tasks.len(), bytes / tasks.len() / 4);
            }
            println!("{line}");
        }
    }
}
