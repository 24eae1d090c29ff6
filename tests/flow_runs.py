"""What Prefect's server knows of a flow's newest run."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging.handlers import APILogWorker


async def newest_run(name: str) -> tuple[FlowRun, list[Log]]:
    """The newest run of a flow with its logs, those of its tasks too."""
    await APILogWorker.drain_all()
    async with get_client() as client:
        named = FlowFilter(name=FlowFilterName(any_=[name]))
        [run] = await client.read_flow_runs(
            flow_filter=named, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1
        )
        of_it = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        return run, await client.read_logs(log_filter=of_it)
