//! A value as types read themselves from it.

use serde::de::value::{Error, MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::Value;

impl IntoDeserializer<'_, Error> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null | Self::Reset | Self::Unknown => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Int(value) => match (u64::try_from(value), i64::try_from(value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_f64(value as f64),
            },
            Self::Float(value) => visitor.visit_f64(value),
            Self::Text(text) => visitor.visit_string(text),
            Self::List(list) => {
                let mut items = SeqDeserializer::new(list.into_iter());
                let read = visitor.visit_seq(&mut items)?;
                items.end().map(|()| read)
            }
            Self::Map(map) => {
                let mut entries = MapDeserializer::new(map.into_iter());
                let read = visitor.visit_map(&mut entries)?;
                entries.end().map(|()| read)
            }
            Self::Override(inner) => inner.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null | Self::Reset | Self::Unknown => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Self::Text(name) => visitor.visit_enum(name.into_deserializer()),
            Self::Map(map) => {
                visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(map.into_iter())))
            }
            other => Err(Error::custom(format_args!("one of several words is needed, not {}", other.kind()))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;

    use crate::value::read;

    #[test]
    fn a_type_reads_the_same_from_it_as_from_json() {
        let text =
            "{n: , t: x, b: true, i: 5, m: -5, big: 18446744073709551615, f: 1.5, l: [1, {a: b}], e: {}}";
        let value = read(text).unwrap().remove(0);
        let read = serde_json::Value::deserialize(value.clone()).unwrap();
        assert_eq!(read, value.into_json());
    }
}
