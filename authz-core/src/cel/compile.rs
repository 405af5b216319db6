//! From source text to a checked expression.
use std::{fmt, sync::Arc};

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use super::{
    MAX_SOURCE_BYTES,
    check::{Type, arithmetic, comparable},
    eval::{Facts, evaluate},
    functions::{Function, NAMES, Style, signature, time_field},
    known,
    node::{Arithmetic, Comparison, Macro, Node, Variable},
    plain::{CelTest, plain},
    regex::unanchored,
    time::parse_offset,
    value::{EvalError, Text, Value},
};

/// Deepest nesting of a compiled expression: what one evaluation may take of the stack.
const MAX_DEPTH: usize = 128;

/// The parser is generated code with large frames, some hundred kilobytes for each level of nesting without
/// optimisation; only what is touched is taken.
const PARSER_STACK_BYTES: usize = 64 << 20;

const VARIABLES: &str = "request.path, request.url_path, request.method, request.host, request.headers, request.time, \
     request.mcp.tool_name, request.mcp.method, request.mcp.arguments, source.identity, source.namespace, \
     source.service_account";

/// Why an expression does not compile, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompileError(String);

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn refuse<T>(message: impl Into<String>) -> Result<T, CompileError> {
    Err(CompileError(message.into()))
}

/// A compiled expression whose result may be a bool.
#[derive(Debug)]
pub(crate) struct Expression(Arc<Node>);

impl Expression {
    /// Parses, checks and compiles.
    ///
    /// # Errors
    /// Text that is no CEL, names and functions that do not exist here, types that show that the result is no
    /// bool, patterns that are no literals, and anything over the limits.
    pub(crate) fn compile(source: &str) -> Result<Self, CompileError> {
        if source.len() > MAX_SOURCE_BYTES {
            return refuse(format!(
                "the expression has {} bytes; at most {MAX_SOURCE_BYTES} are accepted: split it into several rules",
                source.len()
            ));
        }
        if let Some(node) = known::find(source) {
            return Ok(Self(node));
        }
        // On a thread of its own: the parser's recursion needs more stack than a caller may have, and should it
        // panic, that is an expression that does not compile.
        let compiled = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("cel-parser".to_owned())
                .stack_size(PARSER_STACK_BYTES)
                .spawn_scoped(scope, || compile_here(source))
                .map(|thread| thread.join())
        });
        match compiled {
            Ok(Ok(result)) => result.map(|node| {
                let node = Arc::new(node);
                known::remember(source, &node);
                Self(node)
            }),
            Ok(Err(_panic)) => refuse("the expression could not be parsed; simplify it"),
            Err(error) => refuse(format!("the expression could not be checked: {error}; try again")),
        }
    }

    /// Whether both are one compiled form.
    #[cfg(test)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The same as tests of text, where it is that plain.
    ///
    /// # Errors
    /// What is not.
    pub(crate) fn plain(&self) -> Result<CelTest, &'static str> {
        plain(&self.0)
    }

    /// Whether it is true.
    ///
    /// # Errors
    /// Any error of evaluation, and a result that is no bool.
    pub(crate) fn evaluate<'v>(&'v self, facts: Facts<'v>) -> Result<bool, EvalError<'v>> {
        evaluate(&self.0, facts)
    }
}

fn compile_here(source: &str) -> Result<Node, CompileError> {
    let program = cel::Program::compile(source).map_err(|errors| {
        let text = errors.errors.first().map_or_else(String::new, |error| {
            // Generated messages list every token that could follow.
            let message = error.msg.split(" expecting ").next().unwrap_or_default();
            let message: String = message.chars().take(200).collect();
            format!(" at line {}, column {}: {message}", error.pos.0.max(1), error.pos.1.max(1))
        });
        CompileError(format!("it is not CEL{text}"))
    })?;
    let mut compiler = Compiler { locals: Vec::new(), depth: 0 };
    let (node, result) = compiler.node(&program.expression().expr)?;
    if !result.may_be(Type::Bool) {
        return refuse(format!("the result is {}; write a condition that yields a bool", result.name()));
    }
    Ok(node)
}

type Typed = (Node, Type);

struct Compiler<'a> {
    /// Variables of the macros around, with their types; the innermost last.
    locals: Vec<(&'a str, Type)>,
    depth: usize,
}

impl<'a> Compiler<'a> {
    fn node(&mut self, expr: &'a Expr) -> Result<Typed, CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return refuse(format!(
                "it nests deeper than {MAX_DEPTH}; simplify it or split it into several rules"
            ));
        }
        let typed = match expr {
            Expr::Literal(literal) => literal_value(literal).map(|(value, of)| (Node::Literal(value), of)),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(expr, select),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(list) => {
                if !list.optional_indices.is_empty() {
                    return refuse("optional elements are not supported");
                }
                self.list(list.elements.iter().map(|element| &element.expr))
            }
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) if !entry.optional => {
                            entries.push((self.node(&entry.key.expr)?.0, self.node(&entry.value.expr)?.0));
                        }
                        _ => return refuse("optional entries are not supported"),
                    }
                }
                Ok((Node::Map(entries.into()), Type::Map))
            }
            Expr::Struct(of) => refuse(format!("there is no type `{}`", of.type_name)),
            Expr::Unspecified => refuse("it is empty; write a condition, or remove the rule"),
        };
        self.depth -= 1;
        typed
    }

    fn list(&mut self, elements: impl Iterator<Item = &'a Expr>) -> Result<Typed, CompileError> {
        let nodes = elements.map(|element| Ok(self.node(element)?.0)).collect::<Result<Vec<_>, _>>()?;
        if !nodes.iter().all(|node| matches!(node, Node::Literal(_))) {
            return Ok((Node::List(nodes.into()), Type::List));
        }
        let values = nodes.into_iter().filter_map(|node| match node {
            Node::Literal(value) => Some(value),
            _ => None,
        });
        Ok((Node::Literals(values.collect()), Type::List))
    }

    fn local(&self, name: &str) -> Option<(usize, Type)> {
        let (depth, (_, of)) = self.locals.iter().rev().enumerate().find(|(_, (local, _))| *local == name)?;
        Some((depth, *of))
    }

    fn name(&self, name: &str) -> Result<Typed, CompileError> {
        match self.local(name) {
            Some((depth, of)) => Ok((Node::Local(depth), of)),
            None => match name {
                "request" | "source" => {
                    refuse(format!("`{name}` is no value by itself; there is {VARIABLES}"))
                }
                _ => refuse(format!("there is no variable `{name}`; there is {VARIABLES}")),
            },
        }
    }

    /// `request.x`, `request.mcp.x`, `source.x`; `None` for any other selection.
    fn variable(&self, expr: &'a Expr) -> Result<Option<Variable>, CompileError> {
        let Some(path) = path(expr) else { return Ok(None) };
        if path.first().is_some_and(|root| self.local(root).is_some()) {
            return Ok(None);
        }
        Ok(Some(match path.as_slice() {
            ["request", "mcp", "tool_name"] => Variable::ToolName,
            ["request", "mcp", "method"] => Variable::McpMethod,
            ["request", "mcp", "arguments"] => Variable::Arguments,
            ["request", "path"] => Variable::Path,
            ["request", "url_path"] => Variable::UrlPath,
            ["request", "method"] => Variable::Method,
            ["request", "host"] => Variable::Host,
            ["request", "headers"] => Variable::Headers,
            ["request", "time"] => Variable::Time,
            ["source", "identity"] => Variable::Identity,
            ["source", "namespace"] => Variable::Namespace,
            ["source", "service_account"] => Variable::ServiceAccount,
            ["request", "mcp"] => {
                return refuse(format!("`request.mcp` is no value by itself; there is {VARIABLES}"));
            }
            ["request", "mcp", _] | ["request" | "source", _] => {
                return refuse(format!("there is no variable `{}`; there is {VARIABLES}", path.join(".")));
            }
            _ => return Ok(None),
        }))
    }

    fn select(&mut self, expr: &'a Expr, select: &'a SelectExpr) -> Result<Typed, CompileError> {
        if let Some(variable) = self.variable(expr)? {
            return Ok(if select.test {
                (Node::Present(variable), Type::Bool)
            } else {
                (Node::Variable(variable), Type::of_variable(variable))
            });
        }
        let (operand, of) = self.node(&select.operand.expr)?;
        if !of.may_be(Type::Map) {
            return refuse(format!("a {} has no field `{}`", of.name(), select.field));
        }
        let field: Box<str> = select.field.as_str().into();
        Ok(if select.test {
            (Node::HasField(Box::new(operand), field), Type::Bool)
        } else {
            let of = if matches!(operand, Node::Variable(Variable::Headers)) { Type::Str } else { Type::Dyn };
            (Node::Field(Box::new(operand), field), of)
        })
    }

    fn call(&mut self, call: &'a CallExpr) -> Result<Typed, CompileError> {
        let name = call.func_name.as_str();
        match (&call.target, call.args.as_slice()) {
            (None, [one]) => match name {
                "!_" => return Ok((Node::Not(self.bool("!", &one.expr)?), Type::Bool)),
                "-_" => return self.negation(&one.expr),
                "dyn" => return Ok((self.node(&one.expr)?.0, Type::Dyn)),
                _ => {}
            },
            (None, [left, right]) => {
                if let Some(typed) = self.operator(name, &left.expr, &right.expr)? {
                    return Ok(typed);
                }
            }
            (None, [condition, yes, no]) if name == "_?_:_" => {
                let condition = self.bool("?:", &condition.expr)?;
                let (yes, a) = self.node(&yes.expr)?;
                let (no, b) = self.node(&no.expr)?;
                let of = if a == b { a } else { Type::Dyn };
                return Ok((Node::Conditional(condition, Box::new(yes), Box::new(no)), of));
            }
            _ => {}
        }
        self.function(call)
    }

    fn bool(&mut self, operator: &str, expr: &'a Expr) -> Result<Box<Node>, CompileError> {
        let (node, of) = self.node(expr)?;
        if !of.may_be(Type::Bool) {
            return refuse(format!("`{operator}` needs a bool, not {}", of.name()));
        }
        Ok(Box::new(node))
    }

    fn negation(&mut self, operand: &'a Expr) -> Result<Typed, CompileError> {
        let (operand, of) = self.node(operand)?;
        match operand {
            Node::Literal(Value::Int(n)) if n != i64::MIN => Ok((Node::Literal(Value::Int(-n)), of)),
            Node::Literal(Value::Double(n)) => Ok((Node::Literal(Value::Double(-n)), of)),
            operand if of.may_be_any(&[Type::Int, Type::Double, Type::Duration]) => {
                Ok((Node::Negate(Box::new(operand)), of))
            }
            _ => refuse(format!("`-` does not work on {}", of.name())),
        }
    }

    fn operator(
        &mut self,
        name: &str,
        left: &'a Expr,
        right: &'a Expr,
    ) -> Result<Option<Typed>, CompileError> {
        match name {
            "_&&_" => {
                return Ok(Some((Node::And(self.bool("&&", left)?, self.bool("&&", right)?), Type::Bool)));
            }
            "_||_" => {
                return Ok(Some((Node::Or(self.bool("||", left)?, self.bool("||", right)?), Type::Bool)));
            }
            _ => {}
        }
        let comparison = match name {
            "_<_" => Some(Comparison::Less),
            "_<=_" => Some(Comparison::LessOrEqual),
            "_>_" => Some(Comparison::Greater),
            "_>=_" => Some(Comparison::GreaterOrEqual),
            _ => None,
        };
        let operator = match name {
            "_+_" => Some(Arithmetic::Add),
            "_-_" => Some(Arithmetic::Subtract),
            "_*_" => Some(Arithmetic::Multiply),
            "_/_" => Some(Arithmetic::Divide),
            "_%_" => Some(Arithmetic::Modulo),
            _ => None,
        };
        if comparison.is_none() && operator.is_none() && !matches!(name, "_==_" | "_!=_" | "@in" | "_[_]") {
            return Ok(None);
        }
        let (left, a) = self.node(left)?;
        let (right, b) = self.node(right)?;
        let (left, right) = (Box::new(left), Box::new(right));
        if let Some(comparison) = comparison {
            if !comparable(a, b) {
                return no_overload(comparison.symbol(), a, b);
            }
            return Ok(Some((Node::Compare(comparison, left, right), Type::Bool)));
        }
        if let Some(operator) = operator {
            return match arithmetic(operator, a, b) {
                Some(result) => Ok(Some((Node::Arithmetic(operator, left, right), result))),
                None => no_overload(operator.symbol(), a, b),
            };
        }
        Ok(Some(match name {
            "_==_" => (Node::Equal(left, right), Type::Bool),
            "_!=_" => (Node::NotEqual(left, right), Type::Bool),
            "@in" if b.may_be_any(&[Type::List, Type::Map]) => (Node::In(left, right), Type::Bool),
            "@in" => return no_overload("in", a, b),
            _ if a.may_be_any(&[Type::List, Type::Map]) => {
                let of =
                    if matches!(*left, Node::Variable(Variable::Headers)) { Type::Str } else { Type::Dyn };
                (Node::Index(left, right), of)
            }
            _ => return no_overload("[]", a, b),
        }))
    }

    fn function(&mut self, call: &'a CallExpr) -> Result<Typed, CompileError> {
        let name = call.func_name.as_str();
        let operands: Vec<&'a Expr> = call
            .target
            .iter()
            .map(|target| &target.expr)
            .chain(call.args.iter().map(|arg| &arg.expr))
            .collect();
        if name == "matches" {
            return self.matches(&operands);
        }
        if let Some(field) = time_field(name) {
            let (operand, offset) = match (&call.target, operands.as_slice()) {
                (Some(_), [operand]) => (*operand, 0),
                (Some(_), [operand, Expr::Literal(LiteralValue::String(zone))]) => match parse_offset(zone) {
                    Some(offset) => (*operand, offset),
                    None => {
                        return refuse(format!(
                            "the time zone `{}` is not known; write an offset such as '+02:00', or UTC",
                            &**zone
                        ));
                    }
                },
                _ => return refuse(format!("write `timestamp.{name}()` or `timestamp.{name}('+02:00')`")),
            };
            let (operand, of) = self.node(operand)?;
            if !of.may_be_any(&[Type::Timestamp, Type::Duration]) {
                return refuse(format!("`{name}` does not work on {}", of.name()));
            }
            return Ok((Node::Call(Function::Time(field, offset), Box::new([operand])), Type::Int));
        }
        let Some(signature) = signature(name) else {
            return refuse(format!(
                "there is no function or macro `{name}` for these arguments; there is {NAMES}"
            ));
        };
        let style_fits = match signature.style {
            Style::Global => call.target.is_none(),
            Style::Receiver => call.target.is_some(),
            Style::Either => true,
        };
        if !style_fits || operands.len() != 1 + usize::from(signature.second.is_some()) {
            let second = if signature.second.is_some() { "argument" } else { "" };
            return refuse(match signature.style {
                Style::Receiver => format!("write `value.{name}({second})`"),
                _ => format!("write `{name}(value)`"),
            });
        }
        let mut arguments = Vec::with_capacity(operands.len());
        for (position, operand) in operands.into_iter().enumerate() {
            let (node, of) = self.node(operand)?;
            let fits = match (position, signature.second) {
                (0, _) => of.may_be_any(signature.first),
                (_, Some(second)) => of.may_be(second),
                (_, None) => false,
            };
            if !fits {
                return refuse(format!("`{name}` does not work on {}", of.name()));
            }
            arguments.push(node);
        }
        Ok((Node::Call(signature.function, arguments.into()), signature.result))
    }

    fn matches(&mut self, operands: &[&'a Expr]) -> Result<Typed, CompileError> {
        let [text, Expr::Literal(LiteralValue::String(pattern))] = operands else {
            return refuse("`matches` takes one pattern, written as a string literal");
        };
        let (text, of) = self.node(text)?;
        if !of.may_be(Type::Str) {
            return refuse(format!("`matches` does not work on {}", of.name()));
        }
        match unanchored(pattern) {
            Ok(regex) => Ok((Node::Matches(Box::new(text), regex), Type::Bool)),
            Err(why) => refuse(format!("the pattern `{}` does not compile: {why}", &**pattern)),
        }
    }

    /// The macros, told apart by what the parser expands them to.
    fn comprehension(&mut self, of: &'a ComprehensionExpr) -> Result<Typed, CompileError> {
        let (range, range_type) = self.node(&of.iter_range.expr)?;
        if !range_type.may_be_any(&[Type::List, Type::Map]) {
            return refuse(format!("a macro needs a list or a map, not {}", range_type.name()));
        }
        let item = if matches!(range, Node::Variable(Variable::Headers | Variable::Arguments)) {
            Type::Str
        } else {
            Type::Dyn
        };
        let Expr::Call(step) = &of.loop_step.expr else { return unknown_macro() };
        if of.iter_var2.is_some() {
            return unknown_macro();
        }
        self.locals.push((&of.iter_var, item));
        let typed = match (step.func_name.as_str(), step.args.as_slice(), &of.accu_init.expr) {
            ("_&&_", [_, holds], Expr::Literal(_)) => {
                (Macro::All(*self.bool("all", &holds.expr)?), Type::Bool)
            }
            ("_||_", [_, holds], Expr::Literal(_)) => {
                (Macro::Exists(*self.bool("exists", &holds.expr)?), Type::Bool)
            }
            ("_?_:_", [holds, _, _], Expr::Literal(_)) => {
                (Macro::ExistsOne(*self.bool("exists_one", &holds.expr)?), Type::Bool)
            }
            ("_+_", [_, element], Expr::List(_)) => {
                let element = self.collected(&element.expr)?;
                (Macro::Collect { filter: None, element }, Type::List)
            }
            ("_?_:_", [filter, add, _], Expr::List(_)) => {
                let Expr::Call(add) = &add.expr else { return unknown_macro() };
                let [_, element] = add.args.as_slice() else { return unknown_macro() };
                let filter = Some(*self.bool("filter", &filter.expr)?);
                let element = self.collected(&element.expr)?;
                (Macro::Collect { filter, element }, Type::List)
            }
            _ => return unknown_macro(),
        };
        self.locals.pop();
        Ok((Node::Macro(Box::new(range), Box::new(typed.0)), typed.1))
    }

    /// The one element of the list that `map` and `filter` add.
    fn collected(&mut self, list: &'a Expr) -> Result<Node, CompileError> {
        match list {
            Expr::List(list) => match list.elements.as_slice() {
                [element] => Ok(self.node(&element.expr)?.0),
                _ => unknown_macro(),
            },
            _ => unknown_macro(),
        }
    }
}

fn unknown_macro<T>() -> Result<T, CompileError> {
    refuse(format!("this macro is not supported; there is {NAMES}"))
}

fn no_overload<T>(symbol: &str, left: Type, right: Type) -> Result<T, CompileError> {
    refuse(format!("`{symbol}` does not work on {} and {}", left.name(), right.name()))
}

/// The names of `a.b.c`, the tested field included.
fn path(expr: &Expr) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut expr = expr;
    loop {
        match expr {
            Expr::Ident(name) => {
                names.push(name.as_str());
                names.reverse();
                return Some(names);
            }
            Expr::Select(select) => {
                names.push(select.field.as_str());
                expr = &select.operand.expr;
            }
            _ => return None,
        }
    }
}

fn literal_value(literal: &LiteralValue) -> Result<(Value<'static>, Type), CompileError> {
    Ok(match literal {
        LiteralValue::Boolean(value) => (Value::Bool(*value.inner()), Type::Bool),
        LiteralValue::Int(value) => (Value::Int(*value.inner()), Type::Int),
        LiteralValue::UInt(value) => (Value::UInt(*value.inner()), Type::UInt),
        LiteralValue::Double(value) => (Value::Double(*value.inner()), Type::Double),
        LiteralValue::String(value) => (Value::Str(Text::Shared(value.inner().into())), Type::Str),
        LiteralValue::Null => (Value::Null, Type::Null),
        LiteralValue::Bytes(_) => return refuse("bytes are not supported; write a string"),
    })
}
