//! A bounded evaluation.
use std::{cell::Cell, sync::Arc};

use spiffe_id::SpiffeId;

use super::{
    MAX_STEPS,
    arguments::LazyArguments,
    functions::Function,
    node::{Arithmetic, Macro, Node, Variable},
    order::{compare, element, entry, equal, list_len, lookup, map_len},
    value::{EvalError, Text, Value},
};
use crate::{Http, request::mirrors_the_body};

/// What an expression is evaluated on: one tools/call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'v> {
    pub(crate) identity: Option<&'v SpiffeId>,
    /// `params.name`
    pub(crate) tool: &'v str,
    /// The rest of the request; `None` while only the tool's name is known.
    pub(crate) call: Option<Call<'v>>,
}

/// The rest of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'v> {
    pub(crate) http: Http<'v>,
    /// Whether the headers that mirror the body were compared with it.
    pub(crate) mirrors_are_checked: bool,
    /// Nanoseconds since the Unix epoch.
    pub(crate) now: i64,
    pub(crate) arguments: &'v dyn LazyArguments,
}

/// The steps that are left.
#[derive(Debug)]
pub(super) struct Budget(Cell<u32>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Cell::new(MAX_STEPS))
    }

    fn spend<'v>(&self, steps: usize) -> Result<(), EvalError<'v>> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.0.get().checked_sub(steps));
        self.0.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(EvalError::TooManySteps)
    }
    /// One node.
    pub(super) fn step<'v>(&self) -> Result<(), EvalError<'v>> {
        self.spend(1)
    }
    /// Text compared, searched for a text, copied: a step per 32 bytes.
    pub(super) fn text<'v>(&self, bytes: usize) -> Result<(), EvalError<'v>> {
        self.spend(bytes / 32)
    }
    /// Text read: a step per 8 bytes.
    pub(super) fn search<'v>(&self, bytes: usize) -> Result<(), EvalError<'v>> {
        self.spend(1 + bytes / 8)
    }
    /// Keys or elements looked at or copied: a step per 4.
    pub(super) fn items<'v>(&self, items: usize) -> Result<(), EvalError<'v>> {
        self.spend(items / 4)
    }
}

/// Variables of macros: a list on the stack.
struct Scope<'s, 'v> {
    value: Value<'v>,
    outer: Option<&'s Self>,
}

type Outcome<'v> = Result<Value<'v>, EvalError<'v>>;

struct Evaluation<'v> {
    facts: Facts<'v>,
    budget: Budget,
}

/// Evaluates a whole expression.
pub(super) fn evaluate<'v>(node: &'v Node, facts: Facts<'v>) -> Result<bool, EvalError<'v>> {
    let evaluation = Evaluation { facts, budget: Budget::new() };
    match evaluation.value(node, None)? {
        Value::Bool(result) => Ok(result),
        other => Err(EvalError::NotBool(other.type_name())),
    }
}

impl<'v> Evaluation<'v> {
    fn value(&self, node: &'v Node, scope: Option<&Scope<'_, 'v>>) -> Outcome<'v> {
        self.budget.step()?;
        match node {
            Node::Literal(value) => Ok(Value::of_literal(value)),
            Node::Literals(values) => Ok(Value::Literals(values)),
            Node::Variable(variable) => self.variable(*variable),
            Node::Present(variable) => self.is_present(*variable).map(Value::Bool),
            Node::Local(depth) => Ok(local(scope, *depth)),
            Node::Field(operand, field) => {
                let operand = self.value(operand, scope)?;
                self.key(&operand, Value::str(field))
            }
            Node::HasField(operand, field) => {
                let operand = self.value(operand, scope)?;
                self.has_key(&operand, &Value::str(field)).map(Value::Bool)
            }
            Node::Index(operand, index) => {
                let operand = self.value(operand, scope)?;
                let index = self.value(index, scope)?;
                if list_len(&operand).is_some() { at(&operand, &index) } else { self.key(&operand, index) }
            }
            Node::List(elements) => {
                let list = elements.iter().map(|element| self.value(element, scope));
                Ok(Value::List(Arc::new(list.collect::<Result<_, _>>()?)))
            }
            Node::Map(entries) => self.map_literal(entries, scope),
            Node::Not(operand) => self.bool("!", operand, scope).map(|b| Value::Bool(!b)),
            Node::Negate(operand) => negate(self.value(operand, scope)?),
            Node::And(left, right) => self.logic("&&", false, left, right, scope),
            Node::Or(left, right) => self.logic("||", true, left, right, scope),
            Node::Conditional(condition, yes, no) => {
                let branch = if self.bool("?:", condition, scope)? { yes } else { no };
                self.value(branch, scope)
            }
            Node::Equal(left, right) => self.are_equal(left, right, scope).map(Value::Bool),
            Node::NotEqual(left, right) => self.are_equal(left, right, scope).map(|b| Value::Bool(!b)),
            Node::Compare(comparison, left, right) => {
                let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
                let order = compare(comparison.symbol(), &left, &right, &self.budget)?;
                Ok(Value::Bool(order.is_some_and(|order| comparison.holds(order))))
            }
            Node::Arithmetic(operator, left, right) => {
                let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
                self.arithmetic(*operator, left, right)
            }
            Node::In(left, right) => {
                let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
                self.contains(&right, &left).map(Value::Bool)
            }
            Node::Matches(text, pattern) => match self.value(text, scope)? {
                Value::Str(text) => {
                    self.budget.spend(pattern.steps(text.len()))?;
                    Ok(Value::Bool(pattern.is_match(&text)))
                }
                other => Err(EvalError::NoOverload("matches", other.type_name(), None)),
            },
            Node::Call(function, arguments) => self.call(*function, arguments, scope),
            Node::Macro(range, of) => {
                let range = self.value(range, scope)?;
                self.macro_over(&range, of, scope)
            }
        }
    }

    fn call(&self, function: Function, arguments: &'v [Node], scope: Option<&Scope<'_, 'v>>) -> Outcome<'v> {
        match arguments {
            [only] => function.of_one(self.value(only, scope)?, self.facts.call, &self.budget),
            [first, second] => {
                function.of_two(&self.value(first, scope)?, &self.value(second, scope)?, &self.budget)
            }
            _ => Err(EvalError::NoOverload(function.name(), "these arguments", None)),
        }
    }

    fn bool(
        &self,
        operator: &'static str,
        node: &'v Node,
        scope: Option<&Scope<'_, 'v>>,
    ) -> Result<bool, EvalError<'v>> {
        match self.value(node, scope)? {
            Value::Bool(value) => Ok(value),
            other => Err(EvalError::NoOverload(operator, other.type_name(), None)),
        }
    }

    /// `&&` (decided by false) and `||` (decided by true): a side that decides hides an error of the other.
    fn logic(
        &self,
        operator: &'static str,
        decides: bool,
        left: &'v Node,
        right: &'v Node,
        scope: Option<&Scope<'_, 'v>>,
    ) -> Outcome<'v> {
        let left = self.bool(operator, left, scope);
        if matches!(&left, Ok(value) if *value == decides) {
            return Ok(Value::Bool(decides));
        }
        let right = self.bool(operator, right, scope);
        match (left, right) {
            (_, Ok(value)) if value == decides => Ok(Value::Bool(decides)),
            (left, right) => either(left, right).map(Value::Bool),
        }
    }

    fn are_equal(
        &self,
        left: &'v Node,
        right: &'v Node,
        scope: Option<&Scope<'_, 'v>>,
    ) -> Result<bool, EvalError<'v>> {
        let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
        equal(&left, &right, &self.budget)
    }

    fn map_literal(&self, entries: &'v [(Node, Node)], scope: Option<&Scope<'_, 'v>>) -> Outcome<'v> {
        let mut map: Vec<(Value<'v>, Value<'v>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.value(key, scope)?;
            if !matches!(key, Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Str(_)) {
                return Err(EvalError::NoOverload("map key", key.type_name(), None));
            }
            for (other, _) in &map {
                if equal(other, &key, &self.budget)? {
                    return Err(EvalError::RepeatedKey);
                }
            }
            map.push((key, self.value(value, scope)?));
        }
        Ok(Value::Map(Arc::new(map)))
    }

    fn request(&self) -> Result<Call<'v>, EvalError<'v>> {
        self.facts.call.ok_or(EvalError::NotKnown)
    }

    fn variable(&self, variable: Variable) -> Outcome<'v> {
        let missing = |name| EvalError::NoSuchKey(Text::Borrowed(name));
        let account = || self.facts.identity.and_then(SpiffeId::service_account);
        Ok(match variable {
            Variable::ToolName => Value::str(self.facts.tool),
            Variable::McpMethod => Value::str("tools/call"),
            Variable::Arguments => {
                let arguments = self.request()?.arguments;
                Value::of_json(arguments.value().ok_or_else(|| missing("arguments"))?)
            }
            Variable::Path => Value::str(self.request()?.http.path_and_query),
            Variable::UrlPath => Value::str(self.request()?.http.path()),
            Variable::Method => Value::str(self.request()?.http.method),
            Variable::Host => Value::str(self.request()?.http.host),
            Variable::Headers => {
                self.request()?;
                Value::Headers
            }
            Variable::Time => Value::Timestamp(self.request()?.now),
            Variable::Identity => {
                Value::str(self.facts.identity.ok_or_else(|| missing("identity"))?.as_str())
            }
            Variable::Namespace => Value::str(account().ok_or_else(|| missing("namespace"))?.namespace),
            Variable::ServiceAccount => Value::str(account().ok_or_else(|| missing("service_account"))?.name),
        })
    }

    fn is_present(&self, variable: Variable) -> Result<bool, EvalError<'v>> {
        Ok(match variable {
            Variable::Arguments => self.request()?.arguments.is_present(),
            Variable::Identity => self.facts.identity.is_some(),
            Variable::Namespace | Variable::ServiceAccount => {
                self.facts.identity.and_then(SpiffeId::service_account).is_some()
            }
            _ => true,
        })
    }

    /// A header's value, lines joined with a comma. Names are lower case; another spelling is no key.
    fn header(&self, name: &Value<'v>) -> Result<Option<Value<'v>>, EvalError<'v>> {
        let Value::Str(name) = name else { return Ok(None) };
        self.budget.text(name.len())?;
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Ok(None);
        }
        let text = |value: &'v http::HeaderValue| {
            std::str::from_utf8(value.as_bytes()).ok().ok_or(EvalError::HeaderNotText)
        };
        let request = self.request()?;
        let mut lines = request.http.headers.get_all(&**name).iter();
        let Some(first) = lines.next() else { return Ok(None) };
        if !request.mirrors_are_checked && mirrors_the_body(name) {
            return Err(EvalError::HeaderUnchecked);
        }
        let first = text(first)?;
        let mut joined = String::new();
        for line in lines {
            let line = text(line)?;
            self.budget.step()?;
            self.budget.text(line.len())?;
            if joined.is_empty() {
                joined.push_str(first);
            }
            joined.push(',');
            joined.push_str(line);
        }
        Ok(Some(if joined.is_empty() { Value::str(first) } else { Value::Str(joined.into()) }))
    }

    fn key(&self, map: &Value<'v>, key: Value<'v>) -> Outcome<'v> {
        let found = match map {
            Value::Headers => self.header(&key)?,
            _ if map_len(map).is_some() => lookup(map, &key, &self.budget)?,
            other => return Err(EvalError::NoOverload("[]", other.type_name(), Some(key.type_name()))),
        };
        found.ok_or_else(|| match key {
            Value::Str(key) => EvalError::NoSuchKey(key),
            Value::Int(index) => EvalError::NoSuchIndex(index),
            _ => EvalError::NoSuchKey(Text::Borrowed(key.type_name())),
        })
    }

    fn has_key(&self, map: &Value<'v>, key: &Value<'v>) -> Result<bool, EvalError<'v>> {
        match map {
            Value::Headers => Ok(self.header(key)?.is_some()),
            _ if map_len(map).is_some() => Ok(lookup(map, key, &self.budget)?.is_some()),
            other => Err(EvalError::NoOverload("has", other.type_name(), None)),
        }
    }

    /// `in`
    fn contains(&self, collection: &Value<'v>, item: &Value<'v>) -> Result<bool, EvalError<'v>> {
        let Some(len) = list_len(collection) else {
            return self.has_key(collection, item).map_err(|error| match error {
                EvalError::NoOverload(_, right, _) => {
                    EvalError::NoOverload("in", item.type_name(), Some(right))
                }
                other => other,
            });
        };
        for index in 0..len {
            if let Some(other) = element(collection, index)
                && equal(&other, item, &self.budget)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn arithmetic(&self, operator: Arithmetic, left: Value<'v>, right: Value<'v>) -> Outcome<'v> {
        let range = EvalError::OutOfRange(operator.symbol());
        match (operator, left, right) {
            (_, Value::Int(a), Value::Int(b)) => {
                let result = match operator {
                    Arithmetic::Add => a.checked_add(b),
                    Arithmetic::Subtract => a.checked_sub(b),
                    Arithmetic::Multiply => a.checked_mul(b),
                    Arithmetic::Divide => a.checked_div(b),
                    Arithmetic::Modulo => a.checked_rem(b),
                };
                result.map(Value::Int).ok_or(range)
            }
            (_, Value::UInt(a), Value::UInt(b)) => {
                let result = match operator {
                    Arithmetic::Add => a.checked_add(b),
                    Arithmetic::Subtract => a.checked_sub(b),
                    Arithmetic::Multiply => a.checked_mul(b),
                    Arithmetic::Divide => a.checked_div(b),
                    Arithmetic::Modulo => a.checked_rem(b),
                };
                result.map(Value::UInt).ok_or(range)
            }
            (Arithmetic::Add, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
            (Arithmetic::Subtract, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
            (Arithmetic::Multiply, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
            (Arithmetic::Divide, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
            (Arithmetic::Add, Value::Str(a), Value::Str(b)) => {
                self.budget.text(a.len() + b.len())?;
                Ok(Value::Str(format!("{}{}", &*a, &*b).into()))
            }
            (Arithmetic::Add, Value::Timestamp(a), Value::Duration(b))
            | (Arithmetic::Add, Value::Duration(a), Value::Timestamp(b)) => {
                a.checked_add(b).map(Value::Timestamp).ok_or(range)
            }
            (Arithmetic::Add, Value::Duration(a), Value::Duration(b)) => {
                a.checked_add(b).map(Value::Duration).ok_or(range)
            }
            (Arithmetic::Subtract, Value::Timestamp(a), Value::Duration(b)) => {
                a.checked_sub(b).map(Value::Timestamp).ok_or(range)
            }
            (Arithmetic::Subtract, Value::Timestamp(a), Value::Timestamp(b))
            | (Arithmetic::Subtract, Value::Duration(a), Value::Duration(b)) => {
                a.checked_sub(b).map(Value::Duration).ok_or(range)
            }
            (Arithmetic::Add, a, b) if list_len(&a).is_some() && list_len(&b).is_some() => {
                let (m, n) = (list_len(&a).unwrap_or(0), list_len(&b).unwrap_or(0));
                self.budget.items(m + n)?;
                let both = (0..m).filter_map(|i| element(&a, i)).chain((0..n).filter_map(|i| element(&b, i)));
                Ok(Value::List(Arc::new(both.collect())))
            }
            (_, a, b) => Err(EvalError::NoOverload(operator.symbol(), a.type_name(), Some(b.type_name()))),
        }
    }

    fn macro_over(&self, range: &Value<'v>, of: &'v Macro, scope: Option<&Scope<'_, 'v>>) -> Outcome<'v> {
        match of {
            Macro::All(holds) => self.quantified("all", false, range, holds, scope),
            Macro::Exists(holds) => self.quantified("exists", true, range, holds, scope),
            Macro::ExistsOne(holds) => {
                let mut matches = 0_usize;
                self.for_each("exists_one", range, |value| {
                    let inner = Scope { value, outer: scope };
                    matches += usize::from(self.bool("exists_one", holds, Some(&inner))?);
                    Ok(true)
                })?;
                Ok(Value::Bool(matches == 1))
            }
            Macro::Collect { filter, element } => {
                let mut list = Vec::new();
                self.for_each("map", range, |value| {
                    let inner = Scope { value, outer: scope };
                    if match filter {
                        Some(filter) => self.bool("filter", filter, Some(&inner))?,
                        None => true,
                    } {
                        list.push(self.value(element, Some(&inner))?);
                    }
                    Ok(true)
                })?;
                Ok(Value::List(Arc::new(list)))
            }
        }
    }

    /// `all` is `&&` and `exists` is `||` over the elements, errors included.
    fn quantified(
        &self,
        name: &'static str,
        decides: bool,
        range: &Value<'v>,
        holds: &'v Node,
        scope: Option<&Scope<'_, 'v>>,
    ) -> Outcome<'v> {
        let mut so_far = Ok(!decides);
        self.for_each(name, range, |value| {
            let inner = Scope { value, outer: scope };
            match self.bool(name, holds, Some(&inner)) {
                Ok(value) if value == decides => so_far = Ok(decides),
                // There is no absorbing this: the elements that are left will not be looked at.
                Err(EvalError::TooManySteps) => return Err(EvalError::TooManySteps),
                one => {
                    so_far = either(std::mem::replace(&mut so_far, Ok(!decides)), one);
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        so_far.map(Value::Bool)
    }

    /// Each element of a list, or key of a map, until `each` returns false.
    fn for_each(
        &self,
        name: &'static str,
        range: &Value<'v>,
        mut each: impl FnMut(Value<'v>) -> Result<bool, EvalError<'v>>,
    ) -> Result<(), EvalError<'v>> {
        if let Value::Headers = range {
            for header in self.request()?.http.headers.keys() {
                self.budget.step()?;
                if !each(Value::str(header.as_str()))? {
                    break;
                }
            }
            return Ok(());
        }
        let is_list = list_len(range).is_some();
        let Some(len) = list_len(range).or_else(|| map_len(range)) else {
            return Err(EvalError::NoOverload(name, range.type_name(), None));
        };
        for index in 0..len {
            self.budget.step()?;
            let item = if is_list { element(range, index) } else { entry(range, index).map(|(key, _)| key) };
            if let Some(item) = item
                && !each(item)?
            {
                break;
            }
        }
        Ok(())
    }
}

/// Two sides of which none decides: what is not known outweighs an error (the error may not matter then).
fn either<'v>(
    left: Result<bool, EvalError<'v>>,
    right: Result<bool, EvalError<'v>>,
) -> Result<bool, EvalError<'v>> {
    match (left, right) {
        (Err(EvalError::NotKnown), _) | (_, Err(EvalError::NotKnown)) => Err(EvalError::NotKnown),
        (Err(error), _) => Err(error),
        (_, right) => right,
    }
}

fn local<'v>(scope: Option<&Scope<'_, 'v>>, depth: usize) -> Value<'v> {
    let mut scope = scope;
    for _ in 0..depth {
        scope = scope.and_then(|scope| scope.outer);
    }
    // Compiling bound every local to a macro around it.
    scope.map_or(Value::Null, |scope| scope.value.clone())
}

fn at<'v>(list: &Value<'v>, index: &Value<'v>) -> Outcome<'v> {
    let position = match index {
        Value::Int(index) => Some(*index),
        Value::UInt(index) => i64::try_from(*index).ok(),
        _ => return Err(EvalError::NoOverload("[]", list.type_name(), Some(index.type_name()))),
    };
    let found = position.and_then(|position| usize::try_from(position).ok()).and_then(|i| element(list, i));
    found.ok_or(EvalError::NoSuchIndex(position.unwrap_or(i64::MAX)))
}

fn negate(value: Value<'_>) -> Outcome<'_> {
    match value {
        Value::Int(n) => n.checked_neg().map(Value::Int).ok_or(EvalError::OutOfRange("-")),
        Value::Double(n) => Ok(Value::Double(-n)),
        Value::Duration(n) => n.checked_neg().map(Value::Duration).ok_or(EvalError::OutOfRange("-")),
        other => Err(EvalError::NoOverload("-", other.type_name(), None)),
    }
}
