//! A file of `bake`, in HCL or the same in JSON (HCL's JSON syntax), not worked out yet.

use hcl::expr::{Object, ObjectKey, TemplateExpr};
use hcl::{Block, Expression, Structure};
use serde_json::{Map, Value as Json};

use super::{RecipeError, Result};

/// Attributes of a block, in the order of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes(Vec<(String, Expression)>);

/// What a file says.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    pub(super) variables: Vec<(String, Variable)>,
    pub(super) functions: Vec<(String, Function)>,
    pub(super) groups: Vec<(String, Attributes)>,
    pub(super) targets: Vec<(String, Attributes)>,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// HCL.
    Hcl,
    /// The same in JSON.
    Json,
    /// JSON whose texts are what they are, with nothing to be worked out in them.
    Plain,
}

/// A variable, or an attribute beside the blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Variable {
    pub(super) default: Option<Expression>,
    pub(super) kind: Option<String>,
    pub(super) description: String,
    /// What must hold of it, and what is said when it does not.
    pub(super) validations: Vec<(Expression, String)>,
    /// Whether the environment has a say.
    pub(super) may_be_said: bool,
}

/// A function that a file defines.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) params: Vec<String>,
    pub(super) variadic: Option<String>,
    pub(super) result: Expression,
}

// === impl Attributes ===

impl Attributes {
    pub(super) fn get(&self, name: &str) -> Option<&Expression> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, it)| it)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Expression)> {
        self.0.iter().map(|(key, it)| (key, it))
    }
}

impl FromIterator<(String, Expression)> for Attributes {
    fn from_iter<T: IntoIterator<Item = (String, Expression)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

// === impl Contents ===

impl Contents {
    /// Reads a file. `name` is how mistakes are told.
    ///
    /// # Errors
    /// When it cannot be read, or has a block that there is none of.
    pub fn parse(text: &str, form: Form, name: &str) -> Result<Self> {
        match form {
            Form::Hcl => {
                let body = hcl::parse(text).map_err(|error| RecipeError(format!("{name}: {error}")))?;
                Self::of_body(body).map_err(|RecipeError(error)| RecipeError(format!("{name}: {error}")))
            }
            Form::Json | Form::Plain => {
                let json =
                    serde_json::from_str(text).map_err(|error| RecipeError(format!("{name}: {error}")))?;
                Self::of_json(json, form == Form::Json)
                    .map_err(|RecipeError(error)| RecipeError(format!("{name}: {error}")))
            }
        }
    }

    pub(super) fn extend(&mut self, later: Self) {
        // A later definition takes the place of an earlier one; of targets, both count.
        for (name, variable) in later.variables {
            self.variables.retain(|(known, _)| *known != name);
            self.variables.push((name, variable));
        }
        for (name, function) in later.functions {
            self.functions.retain(|(known, _)| *known != name);
            self.functions.push((name, function));
        }
        for (name, group) in later.groups {
            self.groups.retain(|(known, _)| *known != name);
            self.groups.push((name, group));
        }
        self.targets.extend(later.targets);
    }

    fn of_body(body: hcl::Body) -> Result<Self> {
        let mut contents = Self::default();
        for structure in body.into_inner() {
            match structure {
                Structure::Attribute(attribute) => {
                    let variable = Variable { default: Some(attribute.expr), ..Variable::default() };
                    contents.variables.push((attribute.key.to_string(), variable));
                }
                Structure::Block(block) => contents.take(block)?,
            }
        }
        Ok(contents)
    }

    fn take(&mut self, block: Block) -> Result<()> {
        let kind = block.identifier().to_owned();
        let label = block.labels().first().map(|label| label.as_str().to_owned());
        let name = label.ok_or_else(|| RecipeError(format!("a {kind} without a name")))?;
        let mut validations = Vec::new();
        for inner in block.body().blocks() {
            if kind == "variable" && inner.identifier() == "validation" {
                let of = |key: &str| {
                    inner.body().attributes().find(|it| it.key() == key).map(|it| it.expr().clone())
                };
                let message = match of("error_message") {
                    Some(Expression::String(text)) => text,
                    _ => "the value is not valid".to_owned(),
                };
                validations.extend(of("condition").map(|condition| (condition, message)));
            } else {
                return Err(RecipeError(format!("{kind} {name}: there is no block {}", inner.identifier())));
            }
        }
        let attributes: Attributes =
            block.body.into_attributes().map(|it| (it.key.to_string(), it.expr)).collect();
        self.put(&kind, name, attributes, validations)
    }

    fn of_json(json: Json, has_templates: bool) -> Result<Self> {
        let expression = |value| expression(value, has_templates);
        let mut contents = Self::default();
        let Json::Object(top) = json else { return Err(RecipeError("it is no object".to_owned())) };
        for (kind, blocks) in top {
            let Json::Object(blocks) = blocks else {
                let variable = Variable { default: Some(expression(blocks)), ..Variable::default() };
                contents.variables.push((kind, variable));
                continue;
            };
            if !matches!(kind.as_str(), "variable" | "function" | "group" | "target") {
                let variable =
                    Variable { default: Some(expression(Json::Object(blocks))), ..Variable::default() };
                contents.variables.push((kind, variable));
                continue;
            }
            for (name, block) in blocks {
                let block = match block {
                    Json::Object(block) => block,
                    // HCL's JSON may have a list of blocks.
                    Json::Array(list) => {
                        list.into_iter().filter_map(|it| it.as_object().cloned()).flatten().collect()
                    }
                    _ => return Err(RecipeError(format!("{kind} {name} is no object"))),
                };
                let attributes = block.into_iter().map(|(key, value)| (key, expression(value))).collect();
                contents.put(&kind, name, attributes, Vec::new())?;
            }
        }
        Ok(contents)
    }

    fn put(
        &mut self,
        kind: &str,
        name: String,
        attributes: Attributes,
        validations: Vec<(Expression, String)>,
    ) -> Result<()> {
        let word = |key: &str| match attributes.get(key) {
            Some(Expression::Variable(name)) => Some(name.to_string()),
            Some(Expression::String(text)) => Some(text.clone()),
            Some(Expression::FuncCall(call)) => Some(call.name.name.to_string()),
            _ => None,
        };
        match kind {
            "target" => self.targets.push((name, attributes)),
            "group" => self.groups.push((name, attributes)),
            "variable" => {
                let variable = Variable {
                    default: attributes.get("default").cloned(),
                    kind: word("type"),
                    description: word("description").unwrap_or_default(),
                    validations,
                    may_be_said: true,
                };
                self.variables.push((name, variable));
            }
            "function" => {
                let result = attributes.get("result").cloned();
                let result = result.ok_or_else(|| RecipeError(format!("function {name} has no result")))?;
                let params = match attributes.get("params") {
                    Some(Expression::Array(list)) => list.iter().filter_map(named).collect(),
                    _ => Vec::new(),
                };
                let variadic = attributes.get("variadic_params").or_else(|| attributes.get("variadic_param"));
                let variadic = variadic.and_then(named);
                self.functions.push((name, Function { params, variadic, result }));
            }
            other => return Err(RecipeError(format!("there is no block {other}"))),
        }
        Ok(())
    }
}

/// The name of a parameter: a word, or a text in JSON.
fn named(expression: &Expression) -> Option<String> {
    match expression {
        Expression::Variable(name) => Some(name.to_string()),
        Expression::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// A value of JSON, whose texts may be templates.
fn expression(value: Json, has_templates: bool) -> Expression {
    match value {
        Json::Null => Expression::Null,
        Json::Bool(value) => Expression::Bool(value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Expression::from(number),
            (None, Some(number)) => Expression::from(number),
            (None, None) => Expression::Null,
        },
        Json::String(text) if has_templates && (text.contains("${") || text.contains("%{")) => {
            let raw = text.replace('\\', "\\\\").replace('\n', "\\n");
            Expression::from(TemplateExpr::QuotedString(raw))
        }
        Json::String(text) => Expression::String(text),
        Json::Array(list) => {
            Expression::Array(list.into_iter().map(|it| expression(it, has_templates)).collect())
        }
        Json::Object(fields) => Expression::Object(object(fields, has_templates)),
    }
}

fn object(fields: Map<String, Json>, has_templates: bool) -> Object<ObjectKey, Expression> {
    let field =
        |(key, value)| (ObjectKey::Expression(Expression::String(key)), expression(value, has_templates));
    fields.into_iter().map(field).collect()
}
