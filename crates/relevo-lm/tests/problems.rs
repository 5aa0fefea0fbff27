//! Problems: the two halves are disjoint, keys are right, options are plausible and distinct.

use std::collections::HashSet;

use relevo_lm::{Level, Problem, Split};

/// Works an expression out by itself: products before sums, innermost brackets first.
fn worked_out(text: &str) -> i64 {
    if let Some(close) = text.find(')') {
        let open = text[..close].rfind('(').expect("a bracket opens before it closes");
        let inner = worked_out(&text[open + 1..close]);
        return worked_out(&format!("{}{inner}{}", &text[..open], &text[close + 1..]));
    }
    let product = |term: &str| term.split('*').map(|f| f.trim().parse::<i64>().expect(term)).product::<i64>();
    // Values may be negative inside a bracket of a hard problem only if the generator is wrong.
    let mut sum = 0;
    let mut sign = 1;
    for part in text.split_inclusive(['+', '-']) {
        let (term, next) = match part.strip_suffix('+') {
            Some(term) => (term, 1),
            None => part.strip_suffix('-').map_or((part, 1), |term| (term, -1)),
        };
        sum += sign * product(term);
        sign = next;
    }
    sum
}

/// What a question in words comes to, by its sentence.
fn told(question: &str) -> i64 {
    let n: Vec<i64> = question
        .split(|c: char| !c.is_ascii_digit())
        .filter(|t| !t.is_empty())
        .map(|t| t.parse().expect("digits"))
        .collect();
    let signs: Vec<i64> = question
        .split(' ')
        .filter_map(|w| match w {
            "gets" => Some(1),
            "loses" => Some(-1),
            _ => None,
        })
        .collect();
    match () {
        () if question.contains(" has ") => n[0] + signs.iter().zip(&n[1..]).map(|(s, x)| s * x).sum::<i64>(),
        () if question.contains("are loose") && question.contains("takes") => n[0] * n[1] + n[2] - n[3],
        () if question.contains("are loose") => n[0] * n[1] + n[2],
        () if question.contains("takes") => n[0] * n[1] - n[2],
        () if question.contains("each. How many?") => n[0] * n[1],
        () if question.contains("reads") => n[0] + n[1] * n[2],
        () if question.contains("rows of") => n[0] * n[1] - n[2] - n[3],
        () => panic!("no reading of {question}"),
    }
}

#[test]
fn keys_are_right_and_options_distinct() {
    let mut letters = [0; 5];
    for level in Level::ALL {
        for index in 0..2000 {
            let problem = Problem::generate(Split::Evaluation, level, 3, index);
            let expression = problem.question.strip_prefix("What is ").and_then(|q| q.strip_suffix('?'));
            let value = expression.map_or_else(|| told(&problem.question), worked_out);
            let place = usize::from(problem.key as u8 - b'A');
            assert_eq!(problem.options[place], value.to_string(), "{problem}");
            assert!(problem.solution().ends_with(&format!("={value}\nAnswer: {}", problem.key)), "{problem}");
            let distinct: HashSet<&String> = problem.options.iter().collect();
            assert_eq!(distinct.len(), if level == Level::Hard { 5 } else { 4 }, "{problem}");
            assert!(problem.question.len() <= 75, "{problem}");
            letters[place] += 1;
            assert_eq!(
                problem,
                Problem::generate(Split::Evaluation, level, 3, index),
                "a function of its place"
            );
        }
    }
    assert!(letters.iter().all(|n| *n > 300), "no letter is a good guess: {letters:?}");
}

#[test]
fn no_question_is_in_both_halves() {
    let questions = |split| -> HashSet<String> {
        let all = Level::ALL.into_iter().flat_map(move |level| {
            (0..4000).map(move |i| Problem::generate(split, level, i % 5, i).question)
        });
        all.collect()
    };
    let (train, evaluation) = (questions(Split::Train), questions(Split::Evaluation));
    assert!(train.is_disjoint(&evaluation));
    assert!(train.iter().all(|q| Split::of(q) == Split::Train));
    assert!(evaluation.len() > 8000, "{} different questions", evaluation.len());
}

#[test]
fn a_question_of_a_person_gets_options() {
    let problem = Problem::asked("What is 12 + 34 - 5?", 0).expect("a sum");
    assert_eq!(problem.rationale(), "12+34=46; 46-5=41");
    assert_eq!(problem.options[usize::from(problem.key as u8 - b'A')], "41");
    let brackets = Problem::asked("What is (12+34) * (5 - 2)?", 1).expect("brackets");
    assert!(brackets.rationale().ends_with("46*3=138"), "{}", brackets.rationale());
    for other in
        ["What is 5 - 12?", "What is 12 +?", "What is 3?", "Who are you?", "What is 99999 * 99999 * 99999?"]
    {
        assert_eq!(Problem::asked(other, 0), None, "{other}");
    }
}
