//! Finds the places of a source file that can be mutated.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, Stmt};

use crate::constants::constants;

/// A range of octets in a source file.
pub type Octets = Range<usize>;

/// One change of one place.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// From the root of the crate.
    pub file: String,
    pub line: usize,
    /// Modules, types and the function around it.
    pub function: String,
    /// What is changed, without its place: the same after lines have moved.
    pub text: String,
}

impl Mutant {
    /// The name of a mutant in the kept list.
    pub fn key(&self) -> (String, String) {
        (
            self.file.clone(),
            format!("{}: {}", self.function, self.text),
        )
    }
}

/// How a mutant is written into the source.
#[derive(Clone, Debug)]
pub enum Edit {
    /// An expression that may be another one.
    Instead {
        range: Octets,
        mutant: usize,
        text: String,
    },
    /// A statement that may be left out.
    Without { range: Octets, mutant: usize },
    /// Text at a position. `§` in it stands for the test whether the mutant is the chosen one.
    At {
        position: usize,
        mutant: usize,
        text: String,
    },
    /// Alternatives of a pattern, each of which becomes an arm of its own that may be left out.
    Arms {
        patterns: Vec<(Octets, usize)>,
        guard: Option<Octets>,
        body: Octets,
    },
    /// `const` of a function that has these mutants.
    Unconst {
        range: Octets,
        mutants: Range<usize>,
    },
}

#[derive(Debug, Default)]
pub struct Places {
    pub mutants: Vec<Mutant>,
    pub edits: Vec<Edit>,
}

/// Finds the places of a file. Numbers of mutants begin at `first`. Functions of the names in `constant` stay `const`.
pub fn places(
    file: &str,
    source: &str,
    first: usize,
    constant: &BTreeSet<String>,
) -> Result<Places, syn::Error> {
    let tree = syn::parse_file(source)?;
    let mut finder = Finder {
        file,
        source,
        first,
        constant,
        names: Vec::new(),
        seen: HashMap::new(),
        found: Places::default(),
    };
    finder.visit_file(&tree);
    Ok(finder.found)
}

struct Finder<'a> {
    file: &'a str,
    source: &'a str,
    first: usize,
    constant: &'a BTreeSet<String>,
    names: Vec<String>,
    seen: HashMap<(String, String), usize>,
    found: Places,
}

impl Finder<'_> {
    fn text(&self, range: &Octets) -> &str {
        &self.source[range.clone()]
    }

    /// A piece of the source on one line, and not too long.
    fn brief(&self, range: &Octets) -> String {
        brief(self.text(range))
    }

    fn mutant(&mut self, span: Span, text: String) -> usize {
        let function = self.names.join("::");
        let count = self
            .seen
            .entry((function.clone(), text.clone()))
            .or_default();
        *count += 1;
        let text = match *count {
            1 => text,
            count => format!("{text} ({count})"),
        };
        self.found.mutants.push(Mutant {
            file: self.file.to_owned(),
            line: span.start().line,
            function,
            text,
        });
        self.first + self.found.mutants.len() - 1
    }

    fn instead(&mut self, span: Span, what: &str, text: String) {
        let range = span.byte_range();
        let said = format!("`{}`: {what}", self.brief(&range));
        let mutant = self.mutant(span, said);
        self.found.edits.push(Edit::Instead {
            range,
            mutant,
            text,
        });
    }

    /// `left NEW right`, of the octets around an operator.
    fn operator(&mut self, expr: &Expr, left: &Expr, old: &str, new: &str, right: &Expr) {
        let (left, right) = (left.span().byte_range(), right.span().byte_range());
        let text = format!("{} {new} {}", self.text(&left), self.text(&right));
        self.instead(expr.span(), &format!("{old} is {new}"), text);
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        if signature.constness.is_some() && self.constant.contains(&signature.ident.to_string()) {
            return;
        }
        self.names.push(signature.ident.to_string());
        let before = self.found.mutants.len();
        self.body(signature, block);
        self.visit_block(block);
        if let Some(token) = &signature.constness
            && self.found.mutants.len() > before
        {
            let range = token.span.byte_range();
            let mutants = self.first + before..self.first + self.found.mutants.len();
            self.found.edits.push(Edit::Unconst { range, mutants });
        }
        self.names.pop();
    }

    /// A function that returns at once.
    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let Some(first) = block.stmts.first() else {
            return;
        };
        if signature.ident == "default" || signature.ident == "drop" && block.stmts.is_empty() {
            return;
        }
        let position = first.span().byte_range().start;
        let last = block
            .stmts
            .last()
            .map_or(position, |last| last.span().byte_range().end);
        let whole = self.brief(&(position..last));
        let values = match &signature.output {
            syn::ReturnType::Default => vec![String::new()],
            syn::ReturnType::Type(_, of) => constants(of),
        };
        for value in values {
            if whole == value || value == "Default::default()" && whole == "Self::default()" {
                continue;
            }
            let said = match value.as_str() {
                "" => "the body is empty".to_owned(),
                value => format!("the body is `{value}`"),
            };
            let mutant = self.mutant(signature.ident.span(), said);
            let text = format!("if § {{ return {value}; }} ");
            self.found.edits.push(Edit::At {
                position,
                mutant,
                text,
            });
        }
    }

    /// A condition without bindings: always and never.
    fn condition(&mut self, condition: &Expr, values: &[&str]) {
        if has_let(condition) {
            // Edition 2024: a chain may begin with any condition.
            let position = condition.span().byte_range().start;
            let said = format!("`{}`: never", self.brief(&condition.span().byte_range()));
            let mutant = self.mutant(condition.span(), said);
            let text = "!§ && ".to_owned();
            self.found.edits.push(Edit::At {
                position,
                mutant,
                text,
            });
        } else if !is_logic(condition) && !matches!(condition, Expr::Lit(_)) {
            for value in values {
                self.instead(
                    condition.span(),
                    &format!("is {value}"),
                    (*value).to_owned(),
                );
            }
        }
    }

    fn binary(&mut self, expr: &Expr, binary: &syn::ExprBinary) {
        let (left, right) = (&*binary.left, &*binary.right);
        let (old, new): (&str, &[&str]) = match binary.op {
            BinOp::Lt(_) => ("<", &["<=", ">="]),
            BinOp::Le(_) => ("<=", &["<", ">"]),
            BinOp::Gt(_) => (">", &[">=", "<="]),
            BinOp::Ge(_) => (">=", &[">", "<"]),
            BinOp::Eq(_) => ("==", &["!="]),
            BinOp::Ne(_) => ("!=", &["=="]),
            BinOp::Add(_) => ("+", &["-"]),
            BinOp::Sub(_) => ("-", &["+"]),
            BinOp::Mul(_) => ("*", &["/"]),
            BinOp::Div(_) => ("/", &["*"]),
            BinOp::Rem(_) => ("%", &["/"]),
            BinOp::Shl(_) => ("<<", &[">>"]),
            BinOp::Shr(_) => (">>", &["<<"]),
            BinOp::BitAnd(_) => ("&", &["|"]),
            BinOp::BitOr(_) => ("|", &["&"]),
            BinOp::BitXor(_) => ("^", &["&"]),
            BinOp::AddAssign(_) => ("+=", &["-="]),
            BinOp::SubAssign(_) => ("-=", &["+="]),
            BinOp::MulAssign(_) => ("*=", &["/="]),
            BinOp::DivAssign(_) => ("/=", &["*="]),
            BinOp::BitAndAssign(_) => ("&=", &["|="]),
            BinOp::BitOrAssign(_) => ("|=", &["&="]),
            BinOp::And(_) | BinOp::Or(_) => {
                let (old, new, neutral) = match binary.op {
                    BinOp::And(_) => ("&&", "||", "true"),
                    _ => ("||", "&&", "false"),
                };
                if !has_let(expr) {
                    self.operator(expr, left, old, new, right);
                }
                for side in [left, right] {
                    if !has_let(side) && !is_logic(side) {
                        self.instead(side.span(), &format!("is {neutral}"), neutral.to_owned());
                    }
                }
                return;
            }
            _ => return,
        };
        for new in new {
            self.operator(expr, left, old, new, right);
        }
    }

    fn method(&mut self, call: &syn::ExprMethodCall) {
        let name = call.method.to_string();
        let new = match name.as_str() {
            "min" => "max",
            "max" => "min",
            "all" => "any",
            "any" => "all",
            "is_some" => "is_none",
            "is_none" => "is_some",
            "is_ok" => "is_err",
            "is_err" => "is_ok",
            "first" => "last",
            "last" => "first",
            "is_some_and" => "is_none_or",
            "is_none_or" => "is_some_and",
            "saturating_add" => "saturating_sub",
            "saturating_sub" => "saturating_add",
            "is_empty"
            | "contains"
            | "contains_key"
            | "insert"
            | "starts_with"
            | "ends_with"
            | "eq_ignore_ascii_case" => "!",
            "abs_diff" | "rev" | "or" => "",
            _ => return,
        };
        let whole = call.span().byte_range();
        let receiver = call.receiver.span().byte_range();
        let method = call.method.span().byte_range();
        let (what, text) = match new {
            "!" => ("is negated".to_owned(), format!("!({})", self.text(&whole))),
            "" => (format!("without {name}"), self.text(&receiver).to_owned()),
            new => (
                format!("{name} is {new}"),
                format!(
                    "{}{new}{}",
                    self.text(&(whole.start..method.start)),
                    self.text(&(method.end..whole.end)),
                ),
            ),
        };
        self.instead(call.span(), &what, text);
    }

    fn literal(&mut self, literal: &syn::ExprLit) {
        match &literal.lit {
            syn::Lit::Bool(value) => {
                self.instead(
                    literal.span(),
                    &format!("is {}", !value.value),
                    (!value.value).to_string(),
                );
            }
            syn::Lit::Int(value) => {
                let Ok(number) = value.base10_parse::<u128>() else {
                    return;
                };
                let suffix = value.suffix();
                let mut other = vec![number + 1];
                if number > 0 {
                    other.push(number - 1);
                }
                for other in other {
                    self.instead(
                        literal.span(),
                        &format!("is {other}"),
                        format!("{other}{suffix}"),
                    );
                }
            }
            _ => {}
        }
    }

    fn arms(&mut self, expr: &syn::ExprMatch) {
        let is_open = expr
            .arms
            .last()
            .is_some_and(|last| last.guard.is_none() && takes_all(&last.pat));
        for (place, arm) in expr.arms.iter().enumerate() {
            if let Some((_, guard)) = &arm.guard {
                self.condition(guard, &["true", "false"]);
            }
            if !is_open || place + 1 == expr.arms.len() {
                continue;
            }
            let pattern = arm.pat.span().byte_range();
            let body = arm.body.span().byte_range();
            if let syn::Pat::Or(or) = &arm.pat
                && or.leading_vert.is_none()
                && body.len() < 400
                && or.cases.len() < 8
            {
                let patterns = or.cases.iter().map(|case| {
                    let range = case.span().byte_range();
                    let said =
                        format!("`{}`: without {}", self.brief(&pattern), self.brief(&range));
                    (range, self.mutant(case.span(), said))
                });
                let patterns = patterns.collect();
                let guard = arm
                    .guard
                    .as_ref()
                    .map(|(_, guard)| guard.span().byte_range());
                self.found.edits.push(Edit::Arms {
                    patterns,
                    guard,
                    body,
                });
            } else if arm.guard.is_none() {
                let said = format!("`{} =>`: without this arm", self.brief(&pattern));
                let mutant = self.mutant(arm.pat.span(), said);
                let text = " if !§".to_owned();
                let position = pattern.end;
                self.found.edits.push(Edit::At {
                    position,
                    mutant,
                    text,
                });
            }
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Expr(expr, Some(_)) if is_removable(expr) => {
                let range = statement.span().byte_range();
                let said = format!("`{}`: left out", self.brief(&range));
                let mutant = self.mutant(statement.span(), said);
                self.found.edits.push(Edit::Without { range, mutant });
            }
            Stmt::Local(local) => {
                if let Some(init) = &local.init
                    && let Some((_, otherwise)) = &init.diverge
                {
                    let range = local.span().byte_range();
                    let pattern = self.brief(&local.pat.span().byte_range());
                    let said = format!(
                        "`let {pattern} = {}`: else",
                        self.brief(&init.expr.span().byte_range())
                    );
                    let mutant = self.mutant(local.span(), said);
                    let otherwise = self.text(&otherwise.span().byte_range());
                    let text = format!("if § {otherwise} ");
                    self.found.edits.push(Edit::At {
                        position: range.start,
                        mutant,
                        text,
                    });
                }
            }
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_left_out(&item.attrs) {
            return;
        }
        self.names.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.names.pop();
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of = item
            .trait_
            .as_ref()
            .and_then(|(_, path, _)| path.segments.last());
        if is_left_out(&item.attrs) || of.is_some_and(|of| of.ident == "Debug") {
            return;
        }
        let name = brief(&self.source[item.self_ty.span().byte_range()]);
        let name = name.split('<').next().unwrap_or_default().to_owned();
        self.names.push(match of {
            Some(of) => format!("<{name} as {}>", of.ident),
            None => name,
        });
        for item in &item.items {
            self.visit_impl_item(item);
        }
        self.names.pop();
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if is_left_out(&item.attrs) {
            return;
        }
        self.names.push(item.ident.to_string());
        for item in &item.items {
            self.visit_trait_item(item);
        }
        self.names.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_left_out(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_left_out(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default
            && !is_left_out(&item.attrs)
        {
            self.function(&item.sig, block);
        }
    }

    // Constants, types and patterns are made by the compiler, where no switch works.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_item_struct(&mut self, _: &'ast syn::ItemStruct) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generics(&mut self, _: &'ast syn::Generics) {}
    fn visit_angle_bracketed_generic_arguments(
        &mut self,
        _: &'ast syn::AngleBracketedGenericArguments,
    ) {
    }
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_macro(&mut self, _: &'ast syn::Macro) {}

    fn visit_expr_repeat(&mut self, expr: &'ast syn::ExprRepeat) {
        self.visit_expr(&expr.expr);
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        let attributes = match statement {
            Stmt::Local(local) => &local.attrs,
            Stmt::Expr(expr, _) => attributes(expr),
            Stmt::Item(_) | Stmt::Macro(_) => &Vec::new(),
        };
        if is_left_out(attributes) {
            return;
        }
        // An attribute belongs to the whole statement: nothing can be put before it.
        if attributes.is_empty() {
            self.statement(statement);
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        let attributes = attributes(expr);
        if is_left_out(attributes) {
            return;
        }
        if attributes.is_empty() {
            match expr {
                Expr::Binary(binary) => self.binary(expr, binary),
                Expr::Unary(unary) => {
                    let name = match unary.op {
                        syn::UnOp::Not(_) => "without !",
                        syn::UnOp::Neg(_) => "without -",
                        _ => "",
                    };
                    if !name.is_empty() {
                        let text = self.text(&unary.expr.span().byte_range()).to_owned();
                        self.instead(unary.span(), name, text);
                    }
                }
                Expr::Lit(literal) => self.literal(literal),
                Expr::Path(path) if is_constant(&path.path) => {
                    let text = self.text(&path.span().byte_range()).to_owned();
                    self.instead(path.span(), "is twice as much", format!("{text} * 2"));
                    self.instead(path.span(), "is half as much", format!("{text} / 2"));
                }
                Expr::If(branch) => self.condition(&branch.cond, &["true", "false"]),
                Expr::While(repeated) => self.condition(&repeated.cond, &["false"]),
                Expr::Match(choice) => self.arms(choice),
                Expr::MethodCall(call) => self.method(call),
                Expr::Call(call) => {
                    if let Expr::Path(path) = &*call.func
                        && path.path.is_ident("Some")
                    {
                        self.instead(call.span(), "is None", "None".to_owned());
                    }
                }
                Expr::Macro(call) if call.mac.path.is_ident("matches") => {
                    let text = format!("!{}", self.text(&call.span().byte_range()));
                    self.instead(call.span(), "is negated", text);
                }
                _ => {}
            }
        }
        visit::visit_expr(self, expr);
    }
}

/// Text on one line, and not too long.
fn brief(text: &str) -> String {
    const MOST: usize = 110;
    let lines = text
        .lines()
        .map(|line| match line.trim_start().starts_with("//") {
            true => "",
            false => line,
        });
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    let text = words.join(" ");
    if text.chars().count() <= MOST {
        return text;
    }
    let start: String = text.chars().take(MOST / 2).collect();
    let end: Vec<_> = text.chars().rev().take(MOST / 2).collect();
    let end: String = end.into_iter().rev().collect();
    format!("{start}…{end}")
}

/// Whether an expression has a `let` that binds in what follows.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Whether a pattern is `_` or a name, and not that of a variant such as `None`.
fn takes_all(pattern: &syn::Pat) -> bool {
    match pattern {
        syn::Pat::Wild(_) => true,
        syn::Pat::Ident(name) => {
            let name = name.ident.to_string();
            name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        }
        _ => false,
    }
}

/// Whether a path is the name of a constant that somebody has chosen.
fn is_constant(path: &syn::Path) -> bool {
    const OTHERS: [&str; 6] = ["MAX", "MIN", "ZERO", "BITS", "ALL", "EPSILON"];
    path.segments.last().is_some_and(|last| {
        let name = last.ident.to_string();
        let is_upper =
            |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
        name.len() > 1 && name.chars().all(is_upper) && !OTHERS.contains(&name.as_str())
    })
}

fn is_logic(expr: &Expr) -> bool {
    match expr {
        Expr::Binary(binary) => matches!(binary.op, BinOp::And(_) | BinOp::Or(_)),
        Expr::Paren(paren) => is_logic(&paren.expr),
        _ => false,
    }
}

/// Whether leaving out a statement leaves one that may compile.
fn is_removable(expr: &Expr) -> bool {
    match expr {
        Expr::Call(_) | Expr::MethodCall(_) | Expr::Assign(_) => true,
        Expr::Await(awaited) => is_removable(&awaited.base),
        Expr::Try(tried) => is_removable(&tried.expr),
        Expr::Binary(binary) => !matches!(binary.op, BinOp::And(_) | BinOp::Or(_)),
        _ => false,
    }
}

/// Whether code is for tests, or for builds without a feature.
fn is_left_out(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if has_word(list.tokens.clone(), &["test", "not", "fuzzing", "windows"]))
    })
}

fn has_word(tokens: TokenStream, words: &[&str]) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => words.iter().any(|other| word == other),
        TokenTree::Group(group) => has_word(group.stream(), words),
        _ => false,
    })
}

fn attributes(expr: &Expr) -> &Vec<syn::Attribute> {
    const NONE: &Vec<syn::Attribute> = &Vec::new();
    match expr {
        Expr::Assign(e) => &e.attrs,
        Expr::Await(e) => &e.attrs,
        Expr::Binary(e) => &e.attrs,
        Expr::Block(e) => &e.attrs,
        Expr::Call(e) => &e.attrs,
        Expr::Field(e) => &e.attrs,
        Expr::ForLoop(e) => &e.attrs,
        Expr::If(e) => &e.attrs,
        Expr::Lit(e) => &e.attrs,
        Expr::Loop(e) => &e.attrs,
        Expr::Macro(e) => &e.attrs,
        Expr::Match(e) => &e.attrs,
        Expr::MethodCall(e) => &e.attrs,
        Expr::Return(e) => &e.attrs,
        Expr::Struct(e) => &e.attrs,
        Expr::Try(e) => &e.attrs,
        Expr::Unary(e) => &e.attrs,
        Expr::While(e) => &e.attrs,
        _ => NONE,
    }
}
