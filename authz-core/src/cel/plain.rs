//! The part of CEL that is tests of text joined by `&&`, `||` and `!`: what other policy engines can say too.
use super::{
    functions::Function,
    node::{Node, Variable},
    value::Value,
};

/// An expression that only compares texts of the request with literals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CelTest {
    /// `true`, `false`
    Literal(bool),
    /// `!`
    Not(Box<Self>),
    /// `&&`: a side that is false hides an error of the other.
    Both(Box<Self>, Box<Self>),
    /// `||`: a side that is true hides an error of the other.
    Either(Box<Self>, Box<Self>),
    /// `has(x)`, or `'x' in request.headers`.
    Present(Attribute),
    /// An error where the attribute is missing.
    Text(Attribute, TextTest),
}

/// A text of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// `request.mcp.tool_name`; never missing.
    ToolName,
    /// `request.path`: with the query; never missing.
    Path,
    /// `request.url_path`: without the query; never missing.
    UrlPath,
    /// `request.method`; never missing.
    Method,
    /// `request.host`: with port; never missing.
    Host,
    /// `request.headers[name]`: lines joined with a comma. A name in upper case is always missing; one that mirrors the
    /// body is an error unless it was compared with it.
    Header(String),
    /// `source.identity`
    Identity,
    /// `source.namespace`
    Namespace,
    /// `source.service_account`
    ServiceAccount,
}

/// How a text is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextTest {
    /// `==`, `in` a list
    OneOf(Vec<String>),
    /// `startsWith`
    StartsWith(String),
    /// `endsWith`
    EndsWith(String),
    /// `contains`
    Contains(String),
    /// `matches`: RE2 syntax, anywhere in the text.
    Matches(String),
}

/// # Errors
/// What is not such a test.
pub(super) fn plain(node: &Node) -> Result<CelTest, &'static str> {
    Ok(match node {
        Node::Literal(Value::Bool(value)) => CelTest::Literal(*value),
        Node::Not(operand) => CelTest::Not(Box::new(plain(operand)?)),
        Node::And(left, right) => CelTest::Both(Box::new(plain(left)?), Box::new(plain(right)?)),
        Node::Or(left, right) => CelTest::Either(Box::new(plain(left)?), Box::new(plain(right)?)),
        Node::Present(variable) => match Text::of_variable(*variable)? {
            Text::Attribute(attribute) => CelTest::Present(attribute),
            Text::Constant(_) => CelTest::Literal(true),
        },
        Node::HasField(headers, name) if matches!(**headers, Node::Variable(Variable::Headers)) => {
            CelTest::Present(Attribute::Header(name.to_string()))
        }
        Node::In(name, headers) if matches!(**headers, Node::Variable(Variable::Headers)) => {
            CelTest::Present(Attribute::Header(literal(name)?))
        }
        Node::In(text, list) => {
            let Node::Literals(values) = &**list else { return Err("`in` needs a list of literals") };
            let values = values.iter().map(of_value).collect::<Result<_, _>>()?;
            Text::of(text)?.test(TextTest::OneOf(values))?
        }
        Node::Equal(left, right) => equality(left, right)?,
        Node::NotEqual(left, right) => CelTest::Not(Box::new(equality(left, right)?)),
        Node::Matches(text, pattern) => Text::of(text)?.test(TextTest::Matches(pattern.text().to_owned()))?,
        Node::Call(function, operands) => {
            let [text, other] = &**operands else { return Err("only tests of text are") };
            let text = Text::of(text)?;
            let other = literal(other)?;
            text.test(match function {
                Function::StartsWith => TextTest::StartsWith(other),
                Function::EndsWith => TextTest::EndsWith(other),
                Function::Contains => TextTest::Contains(other),
                _ => return Err("of functions only startsWith, endsWith, contains and matches are"),
            })?
        }
        Node::Conditional(..) => return Err("`?:` is not; write it with `&&` and `||`"),
        Node::Macro(..) => return Err("macros are not"),
        _ => return Err("only tests of text, joined by `&&`, `||` and `!`, are"),
    })
}

fn equality(left: &Node, right: &Node) -> Result<CelTest, &'static str> {
    let (text, other) = match literal(right) {
        Ok(other) => (left, other),
        Err(_) => (right, literal(left)?),
    };
    Text::of(text)?.test(TextTest::OneOf(vec![other]))
}

fn literal(node: &Node) -> Result<String, &'static str> {
    match node {
        Node::Literal(value) => of_value(value),
        _ => Err("only comparisons with literals are"),
    }
}

fn of_value(value: &Value<'_>) -> Result<String, &'static str> {
    match value {
        Value::Str(text) => Ok(text.to_string()),
        _ => Err("only comparisons with strings are"),
    }
}

/// What is compared.
enum Text {
    Attribute(Attribute),
    /// The same in every request.
    Constant(&'static str),
}

impl Text {
    fn of(node: &Node) -> Result<Self, &'static str> {
        match node {
            Node::Variable(variable) => Self::of_variable(*variable),
            Node::Field(headers, name) if matches!(**headers, Node::Variable(Variable::Headers)) => {
                Ok(Self::Attribute(Attribute::Header(name.to_string())))
            }
            Node::Index(headers, name) if matches!(**headers, Node::Variable(Variable::Headers)) => {
                Ok(Self::Attribute(Attribute::Header(literal(name)?)))
            }
            _ => Err("only texts of the request as they are are compared"),
        }
    }

    fn of_variable(variable: Variable) -> Result<Self, &'static str> {
        Ok(Self::Attribute(match variable {
            Variable::ToolName => Attribute::ToolName,
            Variable::McpMethod => return Ok(Self::Constant("tools/call")),
            Variable::Path => Attribute::Path,
            Variable::UrlPath => Attribute::UrlPath,
            Variable::Method => Attribute::Method,
            Variable::Host => Attribute::Host,
            Variable::Identity => Attribute::Identity,
            Variable::Namespace => Attribute::Namespace,
            Variable::ServiceAccount => Attribute::ServiceAccount,
            Variable::Arguments => return Err("request.mcp.arguments is not"),
            Variable::Headers => return Err("request.headers as a whole is not"),
            Variable::Time => return Err("request.time is not"),
        }))
    }

    fn test(self, test: TextTest) -> Result<CelTest, &'static str> {
        Ok(match (self, test) {
            (Self::Attribute(attribute), test) => CelTest::Text(attribute, test),
            (Self::Constant(text), TextTest::OneOf(list)) => {
                CelTest::Literal(list.iter().any(|entry| entry == text))
            }
            (Self::Constant(text), TextTest::StartsWith(part)) => CelTest::Literal(text.starts_with(&part)),
            (Self::Constant(text), TextTest::EndsWith(part)) => CelTest::Literal(text.ends_with(&part)),
            (Self::Constant(text), TextTest::Contains(part)) => CelTest::Literal(text.contains(&part)),
            (Self::Constant(_), TextTest::Matches(_)) => {
                return Err("request.mcp.method is always `tools/call`; no pattern");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::cel::Expression;

    use super::*;

    fn text(attribute: Attribute, test: TextTest) -> CelTest {
        CelTest::Text(attribute, test)
    }

    fn one_of(attribute: Attribute, list: &[&str]) -> CelTest {
        text(attribute, TextTest::OneOf(list.iter().map(|one| (*one).to_owned()).collect()))
    }

    #[track_caller]
    fn check(source: &str, expected: &CelTest) {
        assert_eq!(Expression::compile(source).unwrap().plain().as_ref(), Ok(expected), "`{source}`");
    }

    #[test]
    fn tests_of_text() {
        let tool = || one_of(Attribute::ToolName, &["x"]);
        let header = || Attribute::Header("x-a".to_owned());
        check("request.mcp.tool_name == 'x'", &tool());
        check("'x' == request.mcp.tool_name", &tool());
        check("request.mcp.tool_name != 'x'", &CelTest::Not(Box::new(tool())));
        check("request.mcp.tool_name in ['x', 'y']", &one_of(Attribute::ToolName, &["x", "y"]));
        check("request.headers['x-a'] == 'b'", &one_of(header(), &["b"]));
        check("request.headers.tenant == 'b'", &one_of(Attribute::Header("tenant".to_owned()), &["b"]));
        check("'x-a' in request.headers", &CelTest::Present(header()));
        check("has(request.headers.tenant)", &CelTest::Present(Attribute::Header("tenant".to_owned())));
        check("has(source.identity)", &CelTest::Present(Attribute::Identity));
        check("request.path.startsWith('/a')", &text(Attribute::Path, TextTest::StartsWith("/a".to_owned())));
        check("request.host.endsWith('.a')", &text(Attribute::Host, TextTest::EndsWith(".a".to_owned())));
        check("request.method.contains('O')", &text(Attribute::Method, TextTest::Contains("O".to_owned())));
        // Classes are spelled out.
        check(
            r"request.url_path.matches('^/\\d+$')",
            &text(Attribute::UrlPath, TextTest::Matches("^/[0-9]+$".to_owned())),
        );
        check(
            "request.path.matches('a&~b[a&~]')",
            &text(Attribute::Path, TextTest::Matches(r"a&~b[a\&\~]".to_owned())),
        );
        check(
            "true && !(source.namespace == 'n' || request.mcp.tool_name == 'x')",
            &CelTest::Both(
                Box::new(CelTest::Literal(true)),
                Box::new(CelTest::Not(Box::new(CelTest::Either(
                    Box::new(one_of(Attribute::Namespace, &["n"])),
                    Box::new(tool()),
                )))),
            ),
        );
    }

    #[test]
    fn every_text_of_a_request() {
        for (name, attribute) in [
            ("request.mcp.tool_name", Attribute::ToolName),
            ("request.path", Attribute::Path),
            ("request.url_path", Attribute::UrlPath),
            ("request.method", Attribute::Method),
            ("request.host", Attribute::Host),
            ("source.identity", Attribute::Identity),
            ("source.namespace", Attribute::Namespace),
            ("source.service_account", Attribute::ServiceAccount),
        ] {
            check(&format!("{name} == 'x'"), &one_of(attribute.clone(), &["x"]));
            check(&format!("has({name})"), &CelTest::Present(attribute));
        }
    }

    #[test]
    fn the_method_is_known() {
        check("request.mcp.method == 'tools/call'", &CelTest::Literal(true));
        check("request.mcp.method in ['tools/list']", &CelTest::Literal(false));
        check("request.mcp.method in ['tools/list', 'tools/call']", &CelTest::Literal(true));
        check("request.mcp.method != 'tools/call'", &CelTest::Not(Box::new(CelTest::Literal(true))));
        check("request.mcp.method.startsWith('tools/')", &CelTest::Literal(true));
        check("request.mcp.method.startsWith('call')", &CelTest::Literal(false));
        check("request.mcp.method.endsWith('call')", &CelTest::Literal(true));
        check("request.mcp.method.endsWith('tools')", &CelTest::Literal(false));
        check("request.mcp.method.contains('s/c')", &CelTest::Literal(true));
        check("request.mcp.method.contains('list')", &CelTest::Literal(false));
        check("has(request.mcp.method)", &CelTest::Literal(true));
    }

    #[test]
    fn what_is_no_test_of_text() {
        let texts = "only texts of the request as they are are compared";
        for (source, expected) in [
            ("request.mcp.arguments.a == 'x'", texts),
            ("request.path.lowerAscii() == '/a'", texts),
            ("request.path + 'x' == '/ax'", texts),
            ("{'a': 'b'}['a'] == 'b'", texts),
            ("has(request.mcp.arguments)", "request.mcp.arguments is not"),
            ("request.headers == {}", "only comparisons with literals are"),
            ("has(request.headers)", "request.headers as a whole is not"),
            ("has(request.time)", "request.time is not"),
            (
                "request.time > timestamp('2026-01-01T00:00:00Z')",
                "only tests of text, joined by `&&`, `||` and `!`, are",
            ),
            ("size(request.path) > 3", "only tests of text, joined by `&&`, `||` and `!`, are"),
            ("has({'a': 'b'}.a)", "only tests of text, joined by `&&`, `||` and `!`, are"),
            ("bool(request.path)", "only tests of text are"),
            ("request.path == request.url_path", "only comparisons with literals are"),
            ("request.path.startsWith(request.url_path)", "only comparisons with literals are"),
            ("request.path in request.headers", "only comparisons with literals are"),
            ("request.headers[request.path] == 'x'", "only comparisons with literals are"),
            ("request.mcp.tool_name in [request.path]", "`in` needs a list of literals"),
            ("'a' in {'a': 'b'}", "`in` needs a list of literals"),
            ("request.mcp.tool_name in ['a', 1]", "only comparisons with strings are"),
            ("request.mcp.tool_name in [-(1)]", "only comparisons with strings are"),
            ("request.mcp.tool_name in [-(1.5)]", "only comparisons with strings are"),
            ("request.method == dyn(1)", "only comparisons with literals are"),
            ("1 in request.headers", "only comparisons with strings are"),
            ("request.mcp.tool_name == 'x' ? true : false", "`?:` is not"),
            ("['x'].exists(t, t == request.mcp.tool_name)", "macros are not"),
            ("request.headers.size() == 1", "only comparisons with literals are"),
            ("request.mcp.method.matches('tools')", "request.mcp.method is always `tools/call`"),
            // One part that is not, and the whole is not.
            ("request.path == 'x' && size(request.path) == 1", "only comparisons with literals are"),
            ("size(request.path) == 1 || request.path == 'x'", "only comparisons with literals are"),
            ("!(size(request.path) == 1)", "only comparisons with literals are"),
        ] {
            let message = Expression::compile(source).unwrap().plain().unwrap_err();
            assert!(message.contains(expected), "`{source}`: {message}");
        }
    }
}
