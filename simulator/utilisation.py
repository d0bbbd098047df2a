"""Busy seconds into fractions: how much of each tier's resources the measured window used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from persia.scenario import Catalog, Profile, Scenario
from simulator.costs import BatchCosts
from simulator.hardware import Cluster


def utilisation(
    busy: Sequence[float],
    seconds: float,
    lane_busy_s: float,
    cluster: Cluster,
    batch: BatchCosts,
    profile: Profile,
    emulated: bool = False,
) -> dict[str, dict[str, float]]:
    """Return tier -> resource -> fraction of capacity used, from the sums of `Simulation._busy` over a window.

    `lane_busy_s` is the rank-seconds in which a rank's training lane did not wait for embeddings.  The network cards of a
    tier that runs on another tier's machines are counted there; a cluster of one machine has none.  `emulated` ranks have
    an accelerator that takes no processor.
    """
    tiers = cluster.tiers
    servers, workers, ranks, loaders = (tiers[name] for name in ("parameter_server", "embedding_worker", "nn_worker", "loader"))
    host_links = 2.0 * ranks.processes * seconds
    row_bytes_s = busy[6] / 2.0 * batch.server_row_bytes
    dram = profile["wire.dram_bytes_per_s_per_vcpu"] * servers.machine.vcpus * servers.machines
    compute = "accelerator" if ranks.machine.accelerator or emulated else "cpu"
    table = {
        "loader": {"cpu": busy[0] / (loaders.processes * loaders.threads_per_process * seconds)},
        "embedding_worker": {"cpu": busy[1] / (workers.processes * workers.threads_per_process * seconds)},
        "parameter_server": {
            "cpu": busy[2] / (servers.processes * servers.threads_per_process * seconds),
            "dram": row_bytes_s / (dram * seconds),
        },
        "nn_worker": {"training_lane": lane_busy_s / (ranks.processes * seconds), compute: busy[3] / (ranks.processes * seconds)},
    }
    if ranks.machine.accelerator:
        table["nn_worker"]["host_link"] = (busy[4] + busy[5]) / host_links
    if not cluster.one_machine:
        for place, host in enumerate(cluster.nics):
            capacity_s = len(cluster.nics[host]) * seconds
            table[host]["nic_tx"], table[host]["nic_rx"] = (used_s / capacity_s for used_s in busy[7 + 2 * place : 9 + 2 * place])
    return {tier: {resource: min(1.0, used) for resource, used in resources.items()} for tier, resources in table.items()}


def capacity_bounds(scenario: Scenario, catalog: Catalog, profile: Profile, cluster: Cluster, batch: BatchCosts) -> Mapping[str, float]:
    """Return `tier.resource` -> samples a second at which that resource alone would be saturated.

    First-order: mean work of a batch against the tier's whole capacity, no queueing and no latency.
    """
    tiers, samples = cluster.tiers, batch.samples
    servers, workers, ranks, loaders = (tiers[name] for name in ("parameter_server", "embedding_worker", "nn_worker", "loader"))
    nic = 1.0 if cluster.one_machine else profile["wire.nic_efficiency"]
    messages_s = 4.0 * profile["worker.s_per_message"] * servers.processes
    worker_s = (batch.worker_dedup_s + batch.worker_pool_s + batch.worker_unpool_s + messages_s) * workers.cpu_factor
    server_s = (batch.server_lookup_s + batch.server_update_s) * servers.cpu_factor + 2.0 * servers.processes * batch.server_request_s
    bounds = {
        "loader.cpu": loaders.processes * loaders.threads_per_process / (batch.loader_read_s * loaders.cpu_factor),
        "embedding_worker.cpu": workers.processes * workers.threads_per_process / worker_s,
        "parameter_server.cpu": servers.processes * servers.threads_per_process / server_s,
    }
    if not cluster.one_machine:
        into_worker = batch.lookup_reply_bytes + batch.worker_rank_bytes + batch.loader_worker_bytes
        out_of_worker = batch.lookup_request_bytes + batch.update_bytes + batch.worker_rank_bytes
        into_server = batch.lookup_request_bytes + batch.update_bytes
        out_of_server = batch.lookup_reply_bytes
        worker_bytes, server_bytes = max(into_worker, out_of_worker), max(into_server, out_of_server)
        if workers.host == servers.host:
            worker_bytes = server_bytes = max(into_worker + into_server, out_of_worker + out_of_server)
        bounds["embedding_worker.nic"] = workers.machines * workers.nic_bytes_per_s * nic / worker_bytes
        bounds["parameter_server.nic"] = servers.machines * servers.nic_bytes_per_s * nic / server_bytes
        bounds["nn_worker.nic"] = ranks.machines * ranks.nic_bytes_per_s * nic / batch.worker_rank_bytes
    return {resource: batches_per_s * samples for resource, batches_per_s in bounds.items()}
