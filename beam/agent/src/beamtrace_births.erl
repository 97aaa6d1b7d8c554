%% How many processes a node starts, without tracing it: the VM numbers them one after the other, so a process of our own tells.
%% What the budget goes by while new processes are left out, when nobody tells of them.
-module(beamtrace_births).

-export([number/0, since/2, nobody/0]).
-export_type([place/0]).

%% As in `<0.Number.Serial>`: bits 0 to 14 and the bits above up to OTP 25, bits 0 to 27 and the bits above later.
-opaque place() :: {Number :: non_neg_integer(), Serial :: non_neg_integer()}.

-define(EARLY_BITS, 15).
-define(BITS, 28).

-spec number() -> place().
number() ->
    [_, Number, Serial] = string:lexemes(string:trim(pid_to_list(spawn(?MODULE, nobody, [])), both, "<>"), "."),
    {list_to_integer(Number), list_to_integer(Serial)}.

%% Processes that were started after the first and before the second; more where the table of processes is nearly full, as the VM passes over taken places.
-spec since(place(), place()) -> non_neg_integer().
since({Before, Serial}, {Now, Serial}) -> max(0, Now - Before - 1);
since({Before, Early}, {Now, Late}) when Before < 1 bsl ?EARLY_BITS, Now < 1 bsl ?EARLY_BITS ->
    max(0, ((Late - Early) bsl ?EARLY_BITS) + Now - Before - 1);
since({Before, Early}, {Now, Late}) ->
    max(0, ((Late - Early) bsl ?BITS) + Now - Before - 1).

-spec nobody() -> ok.
nobody() -> ok.
