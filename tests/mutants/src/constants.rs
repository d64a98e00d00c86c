//! What a function of a type may return instead of what it computes.

use syn::{GenericArgument, PathArguments, Type};

/// Expressions of a type, none of which needs anything in scope. Those that do not compile are dropped later.
pub fn constants(of: &Type) -> Vec<String> {
    match of {
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec!["()".to_owned()],
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => {
                vec!["\"\"".to_owned(), "\"xyzzy\"".to_owned()]
            }
            Type::Slice(_) if reference.mutability.is_none() => vec!["&[]".to_owned()],
            _ => Vec::new(),
        },
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else {
                return Vec::new();
            };
            of_name(&last.ident.to_string(), inner(&last.arguments))
        }
        Type::Tuple(_) | Type::Array(_) => vec!["Default::default()".to_owned()],
        _ => Vec::new(),
    }
}

fn of_name(name: &str, inner: Option<&Type>) -> Vec<String> {
    let values: &[&str] = match name {
        "bool" => &["true", "false"],
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64"
        | "isize" => &["0", "1"],
        "f32" | "f64" => &["0.0", "1.0"],
        "String" => &["String::new()", "\"xyzzy\".to_owned()"],
        "Ordering" => &["std::cmp::Ordering::Equal"],
        "Option" => {
            return inner.map_or_else(Vec::new, |of| around("Some", of, Some("None")));
        }
        "Poll" => {
            return inner.map_or_else(Vec::new, |of| around("std::task::Poll::Ready", of, None));
        }
        name if name.ends_with("Result") => {
            return inner.map_or_else(|| vec!["Ok(())".to_owned()], |of| around("Ok", of, None));
        }
        _ => &["Default::default()"],
    };
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn around(name: &str, of: &Type, other: Option<&str>) -> Vec<String> {
    let around = constants(of)
        .into_iter()
        .map(|value| format!("{name}({value})"));
    other.map(str::to_owned).into_iter().chain(around).collect()
}

fn inner(arguments: &PathArguments) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(of) => Some(of),
        _ => None,
    })
}
