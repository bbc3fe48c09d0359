//! Tables that arrive: from the chunks that are here, and those that are sent.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use engine::id::DiffId;
use engine::layer::{Sum, Table};

use crate::protocol::Channel;
use crate::transfer::chunk::{ChunkId, ChunkList, Lengths};
use crate::transfer::failure::{TransferError, here};
use crate::transfer::flow::Inflow;
use crate::transfer::message::{Answer, Ranges};
use crate::transfer::receiver::GaveUp;
use crate::transfer::spool::Spool;
use crate::transfer::stock::Stock;

/// Gets the tables that are lacking, from the chunks that are here and those that are sent.
pub(super) fn receive_tables(
    channel: &mut Channel,
    stock: &Stock,
    spools: &mut [(DiffId, Spool, Option<Table>)],
    parts: &[Option<Vec<u8>>],
) -> Result<(), GaveUp> {
    let outlines = parts.iter().map(|part| part.as_deref().map(read_outline).transpose());
    let outlines: Vec<Option<[ChunkList; 3]>> = outlines.collect::<Result<_, _>>()?;
    if outlines.iter().all(Option::is_none) {
        return Ok(());
    }
    let mut kept: HashMap<ChunkId, (usize, Sum)> = HashMap::new();
    for (at, (_, spool, _)) in spools.iter().enumerate() {
        kept.extend(spool.sums().map(|sum| (ChunkId::of(sum), (at, *sum))));
    }
    let mut needed = Vec::new();
    let mut asked = HashSet::new();
    let listed = (0..).zip(&outlines).flat_map(|(at, outline)| outline.iter().map(move |lists| (at, lists)));
    let listed = listed
        .flat_map(|(at, lists)| lists.iter().flat_map(move |list| list.iter().map(move |chunk| (at, chunk))));
    for (number, (layer, (length, id))) in (0u32..).zip(listed) {
        let is_kept = stock.chunk(&id).is_some() || kept.contains_key(&id);
        if !is_kept && asked.insert(id) {
            needed.push((number, layer, length, id));
        }
    }
    channel.send(&Answer::Needs(needed.iter().map(|(number, ..)| *number).collect::<Ranges>()))?;
    let mut inflow = Inflow::new(channel)?;
    let received = needed.iter().try_for_each(|(_, layer, length, id)| {
        let mut chunk = vec![0; *length];
        inflow.read_exact(&mut chunk).map_err(|error| inflow.failure(error))?;
        let sum = Sum::of(&chunk);
        if ChunkId::of(&sum) != *id {
            return Err(TransferError::Refused("a chunk of a table that has another digest".to_owned()));
        }
        kept.insert(*id, (*layer, sum));
        spools[*layer].1.add(&sum, &chunk).map_err(here("keep what arrives"))
    });
    let flushed = spools.iter_mut().try_for_each(|(_, spool, _)| spool.flush());
    match received.and_then(|()| flushed.map_err(here("keep what arrives"))) {
        Ok(()) => inflow.finish()?,
        Err(error) => return Err(GaveUp::Aloud(inflow.stop(error))),
    }
    let mut tables = Vec::new();
    for outline in &outlines {
        let Some(lists) = outline else {
            tables.push(None);
            continue;
        };
        let mut columns = [const { Vec::new() }; 3];
        for (column, list) in columns.iter_mut().zip(lists) {
            for (_, id) in list.iter() {
                match (stock.chunk(&id), kept.get(&id)) {
                    (Some(chunk), _) => column.extend_from_slice(chunk),
                    (None, Some((layer, sum))) => {
                        let spool = &spools[*layer].1;
                        let content = spool.content(sum).unwrap_or_default();
                        spool.read(content).read_to_end(column).map_err(here("read what has arrived"))?;
                    }
                    (None, None) => {}
                }
            }
        }
        tables.push(Some(Table::of_columns(columns).map_err(here("put the table of a layer together"))?));
    }
    for ((_, spool, known), table) in spools.iter_mut().zip(tables) {
        if let Some(table) = table {
            spool.keep_table(&table).map_err(here("keep the table of a layer"))?;
            *known = Some(table);
        }
    }
    Ok(())
}

fn read_outline(mut part: &[u8]) -> Result<[ChunkList; 3], TransferError> {
    let refused = || TransferError::Refused("a list of chunks that makes no sense".to_owned());
    let mut list = || ChunkList::read(&mut part, Lengths::COLUMN).ok_or_else(refused);
    Ok([list()?, list()?, list()?])
}
