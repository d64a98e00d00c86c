//! Values that are written as text: the traits that follow from `as_str`, `Display` and `FromStr`.

/// Implements `Display` by `as_str`, `Serialize` by `Display`, `Deserialize` by `FromStr`: those that are listed.
macro_rules! as_text {
    ($type:ident: $($implemented:ident),+) => {
        $($crate::text::as_text!(@ $implemented $type);)+
    };
    (@ Display $type:ident) => {
        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
    (@ Serialize $type:ident) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
    (@ Deserialize $type:ident) => {
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as ::serde::Deserialize>::deserialize(deserializer)?
                    .parse()
                    .map_err(::serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use as_text;
