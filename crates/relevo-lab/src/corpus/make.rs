//! How a corpus is made: a world is drawn, written down in documents, and asked about. The answers come from the world.

use relevo_core::Rng;

use super::{
    Class, Corpus, CorpusTask, Document, Kind, NOT_STATED, Question,
    vocabulary::{FIRST, Relation, SECOND, Vocabulary},
};

/// The most tasks to learn on and to measure on together: no two of a class are about the same subject.
pub const TASKS_MAX: usize = Class::ALL.len() * FIRST.len() * SECOND.len();

/// The fewest subjects.
const SUBJECTS_MIN: usize = 40;
/// Steps of a procedure.
const STEPS: usize = 5;

/// A service or a product.
struct Subject {
    name: String,
    owner: usize,
    former_owner: usize,
    number: u64,
    former_number: u64,
    count: u64,
    former_count: u64,
    per_part: u64,
    barred: usize,
    /// Of both procedures, the numbers of their steps.
    steps: [Vec<usize>; 2],
    /// How many minutes or days each event took.
    events: Vec<u64>,
}

struct World {
    words: &'static Vocabulary,
    subjects: Vec<Subject>,
    /// Of each owner, where it is reached, and where it was.
    contacts: Vec<[String; 2]>,
    /// Of each situation, the first choice, and the choice where each thing is barred.
    choices: Vec<Vec<usize>>,
}

/// The numbers below `n` in a uniform order (Fisher and Yates).
fn order(n: usize, rng: &mut Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    (1..n).rev().for_each(|i| order.swap(i, rng.below(i as u32 + 1) as usize));
    order
}

/// A number from `least` to `most`.
fn between(least: u64, most: u64, rng: &mut Rng) -> u64 {
    least + u64::from(rng.below((most - least + 1) as u32))
}

impl World {
    fn draw(kind: Kind, subjects: usize, rng: &mut Rng) -> Self {
        let words = Vocabulary::of(kind);
        let names = order(FIRST.len() * SECOND.len(), rng);
        let (numbers, counts) = (order(2 * subjects, rng), order(2 * subjects, rng));
        let owners = words.owners.len();
        let subject = |i: usize| {
            let owner = rng.below(owners as u32) as usize;
            Subject {
                name: format!("{}-{}", FIRST[names[i] / SECOND.len()], SECOND[names[i] % SECOND.len()]),
                owner,
                former_owner: (owner + between(1, owners as u64 - 1, rng) as usize) % owners,
                number: 7000 + numbers[2 * i] as u64,
                former_number: 7000 + numbers[2 * i + 1] as u64,
                // No two are equal, so that one of a pair is greater.
                count: 3 + counts[2 * i] as u64,
                former_count: 3 + counts[2 * i + 1] as u64,
                per_part: between(2, 9, rng),
                barred: rng.below(words.barred.len() as u32) as usize,
                steps: [(); 2].map(|()| order(words.steps.len(), rng)[..STEPS].to_vec()),
                events: (0..between(3, 6, rng)).map(|_| between(11, 97, rng)).collect(),
            }
        };
        let subjects = (0..subjects).map(subject).collect();
        let places = order(FIRST.len(), rng);
        let place = |i: usize| format!("{}-{}", FIRST[places[i % places.len()]], words.contact);
        let contacts = (0..owners).map(|i| [place(i), format!("old-{}", place(i + 3))]).collect();
        let choices = words.situations.iter();
        let choices = choices.map(|_| order(words.actions.len(), rng)[..=words.barred.len()].to_vec());
        World { words, subjects, contacts, choices: choices.collect() }
    }

    /// The answer to a question about the subject `i`, by what was drawn.
    fn ask(&self, kind: Kind, class: Class, i: usize, next: usize, rng: &mut Rng) -> (Question, String) {
        let (words, subject) = (self.words, &self.subjects[i]);
        let mut wording = 0;
        let name = || subject.name.clone();
        let (about, answer) = match class {
            Class::Procedural => {
                let (procedure, at) = (rng.below(2) as usize, rng.below(STEPS as u32 - 1) as usize);
                let steps = &subject.steps[procedure];
                let step = |at: usize| words.steps[steps[at]].to_owned();
                (vec![words.procedures[procedure].to_owned(), name(), step(at)], step(at + 1))
            }
            Class::SingleDocument => (vec![name()], subject.number.to_string()),
            Class::CrossDocument => (vec![name()], self.contacts[subject.owner][0].clone()),
            Class::Synthesis => (vec![name()], subject.events.iter().sum::<u64>().to_string()),
            Class::OutOfCorpus => {
                wording = rng.below(words.unanswered.len() as u32) as usize;
                (vec![name()], NOT_STATED.to_owned())
            }
            Class::Derivative => (vec![name()], (subject.count * subject.per_part).to_string()),
            Class::Mitigation => {
                let situation = rng.below(words.situations.len() as u32) as usize;
                let action = words.actions[self.choices[situation][1 + subject.barred]];
                (vec![name(), words.situations[situation].to_owned()], action.to_owned())
            }
            Class::Pair => {
                let other = &self.subjects[next];
                let greater = if subject.count > other.count { subject } else { other };
                (vec![name(), other.name.clone()], greater.name.clone())
            }
        };
        (Question { kind, class, wording, about }, answer)
    }

    fn documents(&self, rng: &mut Rng) -> Vec<Document> {
        let words = self.words;
        let says = |relation: Relation, holes: &[&str]| words.says(relation).fill(holes);
        let mut documents: Vec<(String, Vec<String>)> = vec![];
        let mut events = 100;
        for subject in &self.subjects {
            let Subject { name, owner, former_owner, barred, .. } = subject;
            let [number, former_number, count, former_count, per_part] = [
                subject.number,
                subject.former_number,
                subject.count,
                subject.former_count,
                subject.per_part,
            ]
            .map(|n| n.to_string());
            let page = vec![
                says(Relation::FormerOwner, &[name, words.owners[*former_owner]]),
                says(Relation::Owner, &[name, words.owners[*owner]]),
                says(Relation::Number, &[name, &number]),
                says(Relation::Count, &[name, &count]),
                says(Relation::Barred, &[name, words.barred[*barred]]),
            ];
            let notes = vec![
                says(Relation::FormerNumber, &[name, &former_number]),
                says(Relation::PerPart, &[name, &per_part]),
                says(Relation::FormerCount, &[name, &former_count]),
            ];
            documents.push((words.titles[0].fill(&[name]), page));
            documents.push((words.titles[1].fill(&[name]), notes));
            for (procedure, steps) in subject.steps.iter().enumerate() {
                let step = |(at, step): (usize, &usize)| {
                    let holes =
                        [&(at + 1).to_string(), words.procedures[procedure], name, words.steps[*step]];
                    says(Relation::Step, &holes)
                };
                let steps = steps.iter().enumerate().map(step).collect();
                documents.push((words.titles[2 + procedure].fill(&[name]), steps));
            }
            for extent in &subject.events {
                events += 1;
                let event = format!("{}-{events}", words.event);
                let text = vec![says(Relation::Event, &[&event, name, &extent.to_string()])];
                documents.push((words.titles[4].fill(&[&event, name]), text));
            }
        }
        for (owner, [now, then]) in words.owners.iter().zip(&self.contacts) {
            let text =
                vec![says(Relation::FormerContact, &[owner, then]), says(Relation::Contact, &[owner, now])];
            documents.push((words.others[0].fill(&[owner]), text));
        }
        for (situation, choices) in words.situations.iter().zip(&self.choices) {
            let mut text = vec![says(Relation::FirstChoice, &[situation, words.actions[choices[0]]])];
            for (barred, choice) in words.barred.iter().zip(&choices[1..]) {
                text.push(says(Relation::Instead, &[situation, barred, words.actions[*choice]]));
            }
            documents.push((words.others[1].fill(&[situation]), text));
        }
        // The name of a document tells nothing of what it is about.
        let names = order(documents.len(), rng);
        let named = documents.into_iter().zip(names).map(|((title, mut text), name)| {
            for filler in order(words.filler.len(), rng).into_iter().take(3) {
                text.insert(rng.below(text.len() as u32 + 1) as usize, words.filler[filler].to_owned());
            }
            Document { id: format!("d{name:04}"), title, text: text.join(" ") }
        });
        let mut documents: Vec<Document> = named.collect();
        documents.sort_by(|a, b| a.id.cmp(&b.id));
        documents
    }
}

impl Corpus {
    /// The corpus of a seed, with so many tasks to learn on and to measure on, equally many of each class as far as that goes;
    /// together at most [`TASKS_MAX`].
    pub fn new(kind: Kind, seed: u64, train: usize, test: usize) -> Self {
        let classes = Class::ALL.len();
        let of_class = |tasks: usize, class: usize| tasks / classes + usize::from(class < tasks % classes);
        let subjects = SUBJECTS_MIN.max(of_class(train, 0) + of_class(test, 0));
        let stream = Rng::stream(seed, "corpus").fork([kind as u64, 0, 0]);
        let world = World::draw(kind, subjects, &mut stream.fork([0, 0, 0]));
        let documents = world.documents(&mut stream.fork([1, 0, 0]));
        let (mut to_learn, mut to_measure) = (vec![], vec![]);
        for class in Class::ALL {
            let mut rng = stream.fork([2, class.index() as u64, 0]);
            let about = order(subjects, &mut rng);
            let (learned, measured) = (of_class(train, class.index()), of_class(test, class.index()));
            for (n, i) in about.iter().take(learned + measured).enumerate() {
                // A pair is one with the next in this order, so that no pair comes twice.
                let (question, answer) = world.ask(kind, class, *i, about[(n + 1) % subjects], &mut rng);
                let (part, list) = match n < learned {
                    true => ("train", &mut to_learn),
                    false => ("test", &mut to_measure),
                };
                list.push(CorpusTask { id: format!("{part}-{}-{n}", class.name()), question, answer });
            }
        }
        Corpus { kind, documents, train: to_learn, test: to_measure }
    }
}
