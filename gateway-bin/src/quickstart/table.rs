//! The tables as they are printed: a row as soon as it is known.
use super::{
    agent::Answer,
    story::{Call, Expected},
};

/// What a denied agent is told.
const FORBIDDEN: &str = "Access to this tool is forbidden.";

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    prompt: &'static str,
    tool: String,
    expected: Expected,
    got: String,
    why: String,
    matches: bool,
}

impl Row {
    pub(crate) fn new(call: &Call, answer: &Answer, why: &str) -> Self {
        let matches = match (call.expected, answer) {
            (Expected::Success, Answer::Success(text)) if call.exact => text == call.answer,
            (Expected::Success, Answer::Success(text)) => text.contains(call.answer),
            (Expected::Forbidden, Answer::Refused { code: 403, message }) => message == FORBIDDEN,
            _ => false,
        };
        let got = if matches { call.expected.name().to_owned() } else { answer.to_string() };
        let why = why.to_owned();
        Self { prompt: call.prompt, tool: tool(call), expected: call.expected, got, why, matches }
    }
}

fn tool(call: &Call) -> String {
    format!("{} on {}", call.tool_name(), call.server.name())
}

/// Widths of the columns, and what was printed so far.
#[derive(Debug)]
pub(crate) struct Table {
    prompt: usize,
    tool: usize,
}

impl Table {
    /// Prints the head of the table of these calls.
    pub(crate) fn begin(calls: &[Call]) -> Self {
        let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
        let table = Self {
            prompt: widest(&mut calls.iter().map(|call| call.prompt.len())),
            tool: widest(&mut calls.iter().map(|call| tool(call).len())),
        };
        table.line("prompt", "tool", "expected", "got", "why");
        table.line(&"-".repeat(table.prompt), &"-".repeat(table.tool), "---------", "---------", "---");
        table
    }

    /// Prints a row; returns whether it is as expected.
    pub(crate) fn row(&mut self, row: &Row) -> bool {
        self.line(row.prompt, &row.tool, row.expected.name(), &row.got, &row.why);
        if !row.matches {
            println!("^ NOT AS EXPECTED");
        }
        row.matches
    }

    fn line(&self, prompt: &str, tool: &str, expected: &str, got: &str, why: &str) {
        println!("{prompt:<p$}  {tool:<t$}  {expected:<9}  {got:<9}  {why}", p = self.prompt, t = self.tool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quickstart::story::first_table;

    #[track_caller]
    fn check(row: usize, answer: &Answer, expected: bool) {
        assert_eq!(Row::new(&first_table()[row], answer, "").matches, expected, "{row} {answer}");
    }

    #[test]
    fn only_the_expected_answer_matches() {
        let refused = |code, message: &str| Answer::Refused { code, message: message.to_owned() };
        check(2, &Answer::Success("The sum of 2 and 3 is 5.".to_owned()), true);
        check(2, &Answer::Success("The sum of 2 and 3 is 6.".to_owned()), false);
        check(2, &refused(403, FORBIDDEN), false);
        check(2, &Answer::Broken("is 5".to_owned()), false);
        check(3, &refused(403, FORBIDDEN), true);
        check(3, &refused(-32602, FORBIDDEN), false);
        check(3, &refused(403, "no"), false);
        check(3, &Answer::Success("Echo: hello".to_owned()), false);
    }
}
