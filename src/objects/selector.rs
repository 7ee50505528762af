//! Label selectors (of requests and of objects) and field selectors.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{At, FieldError, names};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// One condition on one label. `=` is `In` with one value, `!=` is `NotIn` with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: BTreeSet<String>,
}

impl Requirement {
    /// Whether this value of the label (`None`: it is not there) fits.
    pub fn accepts(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = || self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match (self.operator, self.values.len()) {
            (Operator::In, 1) => write!(f, "{}={}", self.key, values()),
            (Operator::In, _) => write!(f, "{} in ({})", self.key, values()),
            (Operator::NotIn, 1) => write!(f, "{}!={}", self.key, values()),
            (Operator::NotIn, _) => write!(f, "{} notin ({})", self.key, values()),
            (Operator::Exists, _) => f.write_str(&self.key),
            (Operator::DoesNotExist, _) => write!(f, "!{}", self.key),
        }
    }
}

/// All requirements hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    /// Selects nothing whatever the requirements (an absent `LabelSelector` object).
    nothing: bool,
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// The selector of a map like a Service's; every pair must be there.
    pub fn from_map<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirements = pairs
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: BTreeSet::from([value.clone()]),
            })
            .collect();
        Self { requirements, nothing: false }
    }

    /// Parses `labelSelector` of a request: `app=web,tier in (a,b),!old`.
    ///
    /// # Errors
    /// The message says what was found where.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser::new(text).selector().map_err(|e| format!("unable to parse requirement: {e}"))
    }

    /// The selector that a `metav1.LabelSelector` object means; a null one selects nothing, an empty one everything.
    ///
    /// # Errors
    /// Of the first malformed requirement.
    pub fn from_object(at: &At<'_>) -> Result<Self, FieldError> {
        if !at.is_set() {
            return Ok(Self::nothing());
        }
        let mut errors = Vec::new();
        validate(at, &mut errors);
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        let mut requirements = Vec::new();
        for (key, value) in at.field("matchLabels").entries() {
            let values = BTreeSet::from([value.text().to_owned()]);
            requirements.push(Requirement { key: key.to_owned(), operator: Operator::In, values });
        }
        for expression in at.field("matchExpressions").items() {
            let operator = match expression.field("operator").text() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                _ => Operator::DoesNotExist,
            };
            let values = expression.field("values").items().map(|v| v.text().to_owned()).collect();
            requirements.push(Requirement { key: expression.field("key").text().to_owned(), operator, values });
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// [`from_object`](Self::from_object) of stored objects, which have been validated; a malformed one selects nothing.
    pub fn of(selector: &Value) -> Self {
        Self::from_object(&At::new("selector", selector)).unwrap_or_else(|_| Self::nothing())
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selects(|key| labels.get(key).map(String::as_str))
    }

    /// [`matches`](Self::matches) for labels that are kept in another way: `label` looks one up.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.accepts(label(&requirement.key)))
    }

    /// The labels that whatever is selected must carry, with their values.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let demanded = self.requirements.iter().filter(|one| one.operator == Operator::In && one.values.len() == 1);
        demanded.flat_map(|one| one.values.iter().map(|value| (one.key.as_str(), value.as_str()))).collect()
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nothing {
            return f.write_str("<none>");
        }
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

/// Checks a `metav1.LabelSelector` object.
pub fn validate(at: &At<'_>, errors: &mut Vec<FieldError>) {
    let labels = at.field("matchLabels");
    names::check_labels(&labels, errors);
    for expression in at.field("matchExpressions").items() {
        let values = expression.field("values");
        let operator = expression.field("operator");
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        let key = expression.field("key");
        for message in names::qualified_name(key.text()) {
            errors.push(key.invalid(message));
        }
        for value in values.items() {
            for message in names::label_value(value.text()) {
                errors.push(value.invalid(message));
            }
        }
    }
}

/// Splits a selector into the tokens of its grammar; a word is anything without blanks and `,()=!<>`.
struct Parser<'a> {
    rest: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Comma,
    Open,
    Close,
    Not,
    Equal,
    NotEqual,
    Word(&'a str),
    Other(char),
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::End => f.write_str("''"),
            Token::Comma => f.write_str("','"),
            Token::Open => f.write_str("'('"),
            Token::Close => f.write_str("')'"),
            Token::Not => f.write_str("'!'"),
            Token::Equal => f.write_str("'='"),
            Token::NotEqual => f.write_str("'!='"),
            Token::Word(word) => write!(f, "'{word}'"),
            Token::Other(c) => write!(f, "'{c}'"),
        }
    }
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start();
        let Some(first) = self.rest.chars().next() else { return Token::End };
        let (token, length) = match first {
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '=' if self.rest.starts_with("==") => (Token::Equal, 2),
            '=' => (Token::Equal, 1),
            '!' if self.rest.starts_with("!=") => (Token::NotEqual, 2),
            '!' => (Token::Not, 1),
            '<' | '>' => (Token::Other(first), 1),
            _ => {
                let end =
                    self.rest.find(|c: char| c.is_whitespace() || ",()=!<>".contains(c)).unwrap_or(self.rest.len());
                (Token::Word(&self.rest[..end]), end)
            }
        };
        self.rest = &self.rest[length..];
        token
    }

    fn peek(&self) -> Token<'a> {
        Parser { rest: self.rest }.next()
    }

    fn selector(mut self) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        if self.peek() == Token::End {
            return Ok(LabelSelector::everything());
        }
        loop {
            requirements.push(self.requirement()?);
            match self.next() {
                Token::End => break,
                Token::Comma if self.peek() == Token::End => {
                    return Err("found '', expected: identifier after ','".to_owned());
                }
                Token::Comma => {}
                other => return Err(format!("found {other}, expected: ',' or 'end of string'")),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word.to_owned(),
            other => return Err(format!("found {other}, expected: identifier")),
        };
        if let Some(message) = names::qualified_name(&key).into_iter().next() {
            return Err(format!("key: Invalid value: {key:?}: {message}"));
        }
        let none = BTreeSet::new();
        if negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: none });
        }
        let (operator, values) = match self.peek() {
            Token::End | Token::Comma => (Operator::Exists, none),
            Token::Equal => {
                self.next();
                (Operator::In, BTreeSet::from([self.value()]))
            }
            Token::NotEqual => {
                self.next();
                (Operator::NotIn, BTreeSet::from([self.value()]))
            }
            Token::Word("in") => {
                self.next();
                (Operator::In, self.values()?)
            }
            Token::Word("notin") => {
                self.next();
                (Operator::NotIn, self.values()?)
            }
            other => {
                return Err(format!("found {other}, expected: in, notin, =, ==, !=, or end of string"));
            }
        };
        for value in &values {
            if let Some(message) = names::label_value(value).into_iter().next() {
                return Err(format!("values[0][{key}]: Invalid value: {value:?}: {message}"));
            }
        }
        Ok(Requirement { key, operator, values })
    }

    /// The value behind `=`; nothing there is the empty value.
    fn value(&mut self) -> String {
        match self.peek() {
            Token::Word(word) => {
                self.next();
                word.to_owned()
            }
            _ => String::new(),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found {other}, expected: '('")),
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value());
            match self.next() {
                Token::Comma => {}
                Token::Close => return Ok(values),
                other => return Err(format!("found {other}, expected: ',', or ')'")),
            }
        }
    }
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// All terms hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Parses `fieldSelector` of a request: `status.phase!=Running,spec.nodeName=n1`, with `\,`, `\=` and `\\` escaped.
    ///
    /// # Errors
    /// The message names the malformed term.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let bad = || format!("invalid selector: '{term}'; can't understand '{term}'");
            let at = unescaped(&term, &['=', '!']).ok_or_else(bad)?;
            let (field, rest) = term.split_at(at);
            let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
                (false, value)
            } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
                (true, value)
            } else {
                return Err(bad());
            };
            terms.push(FieldTerm { field: field.to_owned(), equal, value: unescape(value).ok_or_else(bad)? });
        }
        Ok(Self { terms })
    }

    pub fn matches(&self, fields: &BTreeMap<String, String>) -> bool {
        self.selects(|field| fields.get(field).map(String::as_str))
    }

    /// [`matches`](Self::matches) for fields that are kept in another way: `field` looks one up.
    pub fn selects<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (field(&term.field).unwrap_or("") == term.value) == term.equal)
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The same terms on fields of other names.
    #[must_use]
    pub fn renamed(mut self, name: impl Fn(&str) -> String) -> Self {
        for term in &mut self.terms {
            term.field = name(&term.field);
        }
        self
    }

    /// The value that `field` must have, where some term demands one: lets a watch listen to one name or one node.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

impl std::fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{}{value}", term.field, if term.equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = terms.last_mut() {
            last.push(c);
        }
    }
    terms
}

/// Where the first of `wanted` stands that no backslash escapes.
fn unescaped(text: &str, wanted: &[char]) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        if !escaped && wanted.contains(&c) {
            return Some(i);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                next @ ('\\' | ',' | '=') => out.push(next),
                _ => return None,
            },
            '=' => return None,
            _ => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_match() {
        let labels = map(&[("app", "web"), ("tier", "front"), ("empty", "")]);
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier", true),
            ("app=db", false),
            ("app!=db", true),
            ("gone!=x", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("gone notin (a)", true),
            ("!gone", true),
            ("!app", false),
            ("empty=", true),
            ("app=", false),
            ("empty in (,x)", true),
            ("in in (in)", false),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
            assert_eq!(parsed.matches(&labels), expected, "{selector}");
            let printed = LabelSelector::parse(&parsed.to_string());
            assert_eq!(printed.as_ref(), Ok(&parsed), "printed form of {selector}");
        }
    }

    #[test]
    fn label_selector_errors() {
        for (selector, expected) in [
            ("app=web,", "found ''"),
            ("app in web", "expected: '('"),
            ("app in (a", "found ''"),
            ("=x", "expected: identifier"),
            ("app>3", "found '>'"),
            ("a b", "found 'b'"),
            ("-a", "Invalid value: \"-a\""),
            ("a=b_", "Invalid value: \"b_\""),
        ] {
            let error = LabelSelector::parse(selector).expect_err(selector);
            assert!(error.contains(expected), "{selector}: {error}");
        }
    }

    #[test]
    fn label_selector_objects() {
        let labels = map(&[("app", "web")]);
        for (object, expected) in [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]}), false),
            (json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "x", "operator": "Nonsense"}]}), false),
        ] {
            assert_eq!(LabelSelector::of(&object).matches(&labels), expected, "{object}");
        }
    }

    #[test]
    fn fields_match() {
        let fields = map(&[("status.phase", "Running"), ("reason", "a,b=c")]);
        for (selector, expected) in [
            ("", true),
            ("status.phase=Running", true),
            ("status.phase==Running,spec.nodeName=", true),
            ("status.phase!=Running", false),
            ("reason=a\\,b\\=c", true),
        ] {
            let parsed = FieldSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
            assert_eq!(parsed.matches(&fields), expected, "{selector}");
        }
        for selector in ["status.phase", "a=b=c", "a=\\x"] {
            FieldSelector::parse(selector).expect_err(selector);
        }
        assert_eq!(
            FieldSelector::parse("metadata.name=x").map(|s| s.exact("metadata.name").map(str::to_owned)),
            Ok(Some("x".into()))
        );
    }
}
