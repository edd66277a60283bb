"""Moving the records of another cluster here while it serves: `metactl migrate` (docs/runbooks/migrate.md).

The order of what happens, and why no record is lost:

1. A watch of all keys begins on a node of the source, and only when it has begun, an export of the same node. So what the
   export lacks comes by the watch.
2. The export is compared with one of the target, and the differences are stored. The same step serves for the first copy,
   for going on after an interruption, and as a check of what the watch brought.
3. Changes of the watch follow, each under its sequence number. When the watch ends, for whatever reason, all begins anew
   with step 1, on the next node.
4. To cut over, the source has to stand still, by what a majority of its nodes says. Then step 2 must find no difference,
   and the source must not have moved meanwhile. Where a switch of the source holds its writers off, only expiry moves it,
   which is no difference.

Nothing but the last comparison is trusted. The state of the migration is what the target holds: its records, and a marker
that is replicated with them. So any machine can go on with it, and no file can contradict it.
"""
